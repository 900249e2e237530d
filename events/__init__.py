"""Events, their envelope and their codec (floor 0: imports nothing of Holdfast)."""

from . import headers
from .codec import Payload, decode, decoder_for, describe, encode
from .envelope import Envelope, body_digest, origin, read_history, read_metadata, seal, to_message
from .errors import (
    BrokerUnavailable,
    ConfigurationError,
    DecodeError,
    HandlerSignal,
    HoldfastError,
    NotConnected,
    PublishError,
    PublishRefused,
    PublishTimeout,
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
from .ids import derived_id, uuid7
from .message import Headers, Message
from .metadata import History, Metadata

__all__ = [
    "BrokerUnavailable",
    "ConfigurationError",
    "DecodeError",
    "Envelope",
    "Event",
    "HandlerSignal",
    "Headers",
    "History",
    "HoldfastError",
    "Message",
    "Metadata",
    "NotConnected",
    "Payload",
    "PublishError",
    "PublishRefused",
    "PublishTimeout",
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
    "body_digest",
    "decode",
    "decoder_for",
    "derived_id",
    "describe",
    "encode",
    "headers",
    "key_of",
    "origin",
    "read_history",
    "read_metadata",
    "seal",
    "to_message",
    "uuid7",
]
