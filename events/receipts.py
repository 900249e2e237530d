"""Receipts: what a worker tells whoever replayed a dead letter of how that ended.

A replayed message says in a header which replay it belongs to and which letter it was. A worker that has settled it
publishes a receipt to one exchange, under the replay's name; nobody has to listen.
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
    """The value of the header that makes a message a replay of a letter."""
    return f"{replay}/{letter}"


def replay_of(headers: Headers) -> tuple[str, str] | None:
    """The names of replay and letter, where the message is one."""
    mark = headers.get(h.REPLAY)
    found = _MARK.fullmatch(mark) if isinstance(mark, str) else None
    return None if found is None else (found[1], found[2])


def forced_by(headers: Headers) -> str | None:
    """The replay that wants this event handled even if it has completed: then it is claimed as that replay's own."""
    name = headers.get(h.REPLAY_FORCED)
    return name if isinstance(name, str) and 0 < len(name) <= 60 and replay_of(headers) is not None else None


def receipt_message(receipt: Receipt) -> Message:
    """The receipt, ready to be published."""
    body = json.dumps(asdict(receipt)).encode()
    return Message(body, RECEIPTS, receipt.replay, message_id=uuid7(), content_type="application/json")


def read_receipt(message: Message) -> Receipt | None:
    """What a message says, where it is a receipt."""
    try:
        told = from_json(message.body) if len(message.body) <= _LONGEST else None  # refuses half a surrogate pair
    except ValueError:
        return None
    if not isinstance(told, dict) or told.get("outcome") not in get_args(ReceiptOutcome):
        return None
    texts = {f.name: told.get(f.name) for f in fields(Receipt) if f.name != "attempt"}
    attempt = told.get("attempt")
    if not all(isinstance(text, str) for text in texts.values()) or type(attempt) is not int:
        return None
    return Receipt(**cast("dict[str, str]", texts), attempt=attempt)  # type: ignore[arg-type]
