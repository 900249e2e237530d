"""Receipts: reports of how a replayed dead letter ended.

A replayed message has a header with the names of its replay and of its letter. A worker that has settled it publishes a
receipt to one exchange, under the replay's name; nobody has to listen.
"""

import json
import re
from dataclasses import asdict, dataclass, fields
from typing import Literal, TypeAlias, cast, get_args

from pydantic_core import from_json

from . import headers as h
from .ids import uuid7
from .message import Headers, Message

RECEIPTS = "holdfast.replay"
"""The exchange. Routing key: the name of the replay."""

ReceiptOutcome: TypeAlias = Literal["handled", "duplicate", "postponed", "dead_lettered"]
_MARK = re.compile(r"([0-9a-z-]{1,60})/([0-9a-z-]{1,60})")
_LONGEST = 10_000


@dataclass(frozen=True, slots=True)
class Receipt:
    """How one attempt at a replayed letter ended. `fingerprint` is that of the failure, if it was one."""

    replay: str
    letter: str
    outcome: ReceiptOutcome
    attempt: int = 1
    error: str = ""
    fingerprint: str = ""


def replay_mark(replay: str, letter: str) -> str:
    """Return the value of the header that makes a message a replay of a letter."""
    return f"{replay}/{letter}"


def replay_of(headers: Headers) -> tuple[str, str] | None:
    """Return the names of replay and letter; None for a message that is no replay."""
    mark = headers.get(h.REPLAY)
    names = _MARK.fullmatch(mark) if isinstance(mark, str) else None
    return None if names is None else (names[1], names[2])


def forced_by(headers: Headers) -> str | None:
    """Return the replay that has this event handled even if it has completed; None for any other message.

    Such an event is claimed as that replay's own.
    """
    name = headers.get(h.REPLAY_FORCED)
    return name if isinstance(name, str) and 0 < len(name) <= 60 and replay_of(headers) is not None else None


def receipt_message(receipt: Receipt) -> Message:
    """Return the message that carries the receipt."""
    body = json.dumps(asdict(receipt)).encode()
    return Message(body, RECEIPTS, receipt.replay, message_id=uuid7(), content_type="application/json")


def read_receipt(message: Message) -> Receipt | None:
    """Return the receipt that a message carries; None for any other message."""
    try:
        given = from_json(message.body) if len(message.body) <= _LONGEST else None  # refuses half a surrogate pair
    except ValueError:
        return None
    if not isinstance(given, dict) or given.get("outcome") not in get_args(ReceiptOutcome):
        return None
    texts = {f.name: given.get(f.name) for f in fields(Receipt) if f.name != "attempt"}
    attempt = given.get("attempt")
    if not all(isinstance(text, str) for text in texts.values()) or type(attempt) is not int:
        return None
    return Receipt(**cast("dict[str, str]", texts), attempt=attempt)  # type: ignore[arg-type]
