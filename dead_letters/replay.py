"""The messages that replace letters: the same event to the queue it died in, or an edited one."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from ..broker import DEAD_SUFFIX, LEDGER_SUFFIX, ledger_queue
from ..events import ConfigurationError, Message, Names, derived_id, metadata_headers, read_metadata, replay_mark, uuid7
from ..events import headers as h
from .foreign import SUFFIXES, failure_of, is_written_on_failure
from .letter import NO_NAMES, NO_TIME, Letter, origin_of

_ANOTHER_TIME = NO_TIME + timedelta(days=1)
_OURS = (h.EVENT_ID, h.EVENT_TIME, h.EVENT_VERSION, h.CAUSATION_ID, h.CAUSED_BY)


@dataclass(frozen=True, slots=True)
class Edit:
    """What is to be different. Without a `body` the old one stays, with `put` where it has `find`. `headers` with the
    value None are taken away. Raises `ConfigurationError` for a header that cannot be edited."""

    body: bytes | None = None
    headers: Mapping[str, str | None] = field(default_factory=dict)
    find: str = ""
    put: str = ""

    def __post_init__(self) -> None:
        for name in self.headers:
            if not name or not h.is_senders(name) or name in _OURS:
                raise ConfigurationError(f"the header {name!r} is not one that can be edited")

    def body_of(self, message: Message) -> bytes:
        """Return the body that this makes of a message's."""
        if self.body is not None or not self.find:
            return message.body if self.body is None else self.body
        return message.body.replace(self.find.encode(), self.put.encode())


def target_of(letter: Letter, dead_queue: str, to: str | None = None) -> str:
    """The queue a replay of the letter goes to: `to`, or the one it died in, of an ordered handler its ledger. Raises
    `ConfigurationError`."""
    target = to or dead_queue.removesuffix(DEAD_SUFFIX)
    if target == dead_queue:
        target = letter.target or _without_suffix(letter, dead_queue)
    if not target or target == dead_queue:
        raise ConfigurationError(f"nothing in letter {letter.key} says which queue it died in; name one with --to")
    return ledger_queue(target) if to is None and h.ORDER_KEY in letter.message.headers else target


def _without_suffix(letter: Letter, dead_queue: str) -> str:
    """Return the queue whose dead letters another system puts here, where it wrote this one."""
    failure = failure_of(letter.message.headers)
    if failure is None or not failure.reason:
        return ""
    return next((dead_queue.removesuffix(suffix) for suffix in SUFFIXES if dead_queue.endswith(suffix)), "")


def replayed(letter: Letter, *, operation: str, target: str, forced: bool) -> Message:
    """The same event for `target` alone, as its first attempt. `forced`: also where the event has completed."""
    message = letter.message
    exchange, key = origin_of(message)
    ours: dict[str, Any] = {h.REPLAY: replay_mark(operation, letter.key), h.EXCHANGE: exchange, h.ROUTING_KEY: key}
    if letter.event_id != message.headers.get(h.EVENT_ID):  # no worker has read it: it is to be read as it came
        ours[h.MESSAGE_ID] = message.headers.get(h.MESSAGE_ID, message.message_id or "")
    if forced:
        ours[h.REPLAY_FORCED] = operation
    if target.endswith(LEDGER_SUFFIX):
        ours |= {h.LEDGER: "letter", h.ORDER_KEY: message.headers.get(h.ORDER_KEY, "")}
    kept = (n for n in message.headers if h.is_senders(n) or n in (h.GUESSED_ID, h.FOLLOW))
    theirs = {n: message.headers[n] for n in kept if not is_written_on_failure(n)}
    return replace(message, exchange="", routing_key=target, headers={**theirs, **ours}, message_id=uuid7())


def edited(letter: Letter, edit: Edit, *, operation: str, target: str, names: Names = NO_NAMES) -> Message:
    """A new event made of an old one, which it names as its cause. Its id is the same however often this is asked."""
    message = replayed(letter, operation=operation, target=target, forced=False)
    metadata = replace(read_metadata(message, NO_TIME, names), caused_by=None)  # no handler publishes it
    rewritten = (*h.IDENTITY, h.MESSAGE_ID, h.GUESSED_ID)
    headers = {n: value for n, value in message.headers.items() if n not in rewritten} | metadata_headers(metadata)
    if read_metadata(message, _ANOTHER_TIME, names).time != metadata.time:  # none was sent
        del headers[h.EVENT_TIME]
    for name, value in edit.headers.items():
        headers.pop(name, None)
        if value is not None:
            headers[name] = value
    headers |= {h.EVENT_ID: edited_id(letter, operation), h.CAUSATION_ID: letter.event_id}
    return replace(
        message,
        body=edit.body_of(message),
        headers=headers,
        type=metadata.event_type or None,
        correlation_id=metadata.correlation_id,
        app_id=metadata.source or None,
    )


def edited_id(letter: Letter, operation: str) -> str:
    """The id of the event that an edit makes of a letter. Letters may share a guessed id, and never their key."""
    return derived_id(letter.event_id, f"{operation}/{letter.key}", 0)
