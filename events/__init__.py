"""Events, their envelope and their codec (floor 0: imports nothing of Holdfast)."""

from . import headers
from .cloudevents import in_form
from .codec import Kind, decode, decoder_for, encode
from .envelope import Envelope, seal, to_message
from .errors import (
    BrokerUnavailable,
    ConfigurationError,
    DecodeError,
    HandlerSignal,
    HoldfastError,
    NotConnected,
    NotPermitted,
    PublishError,
    PublishRefused,
    PublishTimeout,
    QueueInUse,
    Reject,
    RetryLater,
    TooLarge,
    TopologyDrift,
    TopologyError,
    TopologyMissing,
    UnknownType,
    Unreadable,
    Unroutable,
    UnsupportedVersion,
)
from .event import Event, key_of
from .ids import derived_id, random_bytes, uuid7
from .incoming import Incoming, origin, read_history, read_incoming, read_metadata
from .message import Headers, Message
from .metadata import History, Metadata
from .reading import Reader, reader
from .receipts import (
    RECEIPTS,
    Receipt,
    ReceiptOutcome,
    forced_by,
    read_receipt,
    receipt_message,
    replay_mark,
    replay_of,
)
from .value import value
from .versions import as_published, downcast, lineage, upcast

__all__ = [
    "RECEIPTS",
    "Receipt",
    "ReceiptOutcome",
    "forced_by",
    "read_receipt",
    "receipt_message",
    "replay_mark",
    "replay_of",
    "BrokerUnavailable",
    "ConfigurationError",
    "DecodeError",
    "Envelope",
    "Event",
    "HandlerSignal",
    "Headers",
    "History",
    "HoldfastError",
    "Incoming",
    "Kind",
    "Message",
    "Metadata",
    "NotConnected",
    "NotPermitted",
    "PublishError",
    "PublishRefused",
    "PublishTimeout",
    "Reader",
    "QueueInUse",
    "Reject",
    "RetryLater",
    "TooLarge",
    "TopologyDrift",
    "TopologyError",
    "TopologyMissing",
    "UnknownType",
    "Unreadable",
    "Unroutable",
    "UnsupportedVersion",
    "as_published",
    "decode",
    "decoder_for",
    "derived_id",
    "downcast",
    "encode",
    "headers",
    "in_form",
    "key_of",
    "lineage",
    "origin",
    "read_history",
    "read_incoming",
    "read_metadata",
    "reader",
    "seal",
    "to_message",
    "upcast",
    "random_bytes",
    "uuid7",
    "value",
]
