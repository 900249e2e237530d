"""A dead letter as a value: what its message says of why it died, whoever wrote that down."""

import hashlib
import json
import re
from collections import Counter, defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from ..events import Message, Names, origin, read_history, read_metadata
from ..events import headers as h
from ..telemetry import redact
from .archive import to_json
from .foreign import Failure, failure_of

_NOTHING = Failure()
NO_NAMES = Names()
NO_TIME = datetime.fromtimestamp(0, UTC)
_ERROR = re.compile(r"^([A-Za-z_][\w.<>]*)(?::|$)", re.MULTILINE)
_NOT_PART_OF_IT = (h.EXCHANGE, h.ROUTING_KEY, h.RESTORED)
_TEXT = 4_000
_NAMES = {"delivery_limit": "delivery-limit"}
REASONS = (
    "exhausted", "refused", "unreadable", "unknown-type", "unsupported-version", "crashed", "expired", "too-large",
    "fingerprint-mismatch", "unexpected", "delivery-limit", "rejected", "maxlen", "fault", "skipped", "unknown",
)  # fmt: skip
"""Why letters die: as workers, RabbitMQ or another system (`fault`, `skipped`) say, or nothing says so."""


@dataclass(frozen=True, slots=True)
class Letter:
    """A message in a dead-letter queue. `key` names it there: the same message has the same key whenever the queue is
    read. `target` is the queue it died in, where a replay takes it. `is_foreign`: not written by Holdfast."""

    key: str
    position: int
    event_id: str
    event_type: str
    version: int
    reason: str
    handler: str
    target: str
    error_type: str
    error_message: str
    fingerprint: str
    attempt: int
    first_failed_at: datetime | None
    failed_at: datetime | None
    worker: str
    correlation_id: str
    is_foreign: bool
    returns: int
    message: Message

    @property
    def traceback(self) -> str:
        ours, theirs = _text(self.message.headers.get(h.TRACEBACK), 100_000), failure_of(self.message.headers)
        return redact(ours or (theirs.traceback if theirs is not None else ""))

    @property
    def chain(self) -> list[str]:
        """The types of the exceptions behind it, the last one raised last."""
        parts = self.traceback.split("Traceback (most recent call last):\n")[1:]
        return [line[1] for part in parts if (line := _ERROR.search(part))] or [self.error_type]

    @property
    def replayed(self) -> str:
        """The replay it came back from, if it did."""
        return _text(self.message.headers.get(h.REPLAY)).partition("/")[0]


def key_of(message: Message) -> str:
    """What names a message in its queue: a digest of all of it but where it was published, how often it was delivered,
    and by which import it came back."""
    whole = to_json(message)
    del whole["exchange"], whole["routing_key"]
    headers = {name: value for name, value in whole.get("headers", {}).items() if name not in _NOT_PART_OF_IT}
    whole["headers"] = headers
    return hashlib.blake2b(json.dumps(whole, sort_keys=True).encode(), digest_size=8).hexdigest()


def base_of(key: str) -> str:
    """Return what the keys of letters that are alike in everything have in common."""
    return key.partition("-")[0]


class Keys:
    """The keys of the messages of a queue, in its order. Of messages that are alike in everything the second key ends
    in `-2`. `known` are keys that have been given before, each with whether it is to be given again: these come first,
    in their order, and the others of them never."""

    def __init__(self, known: Mapping[str, bool] | None = None) -> None:
        self._known = known or {}
        self._again = defaultdict[str, deque[str]](deque)
        self._alike = Counter[str]()
        for key, again in self._known.items():
            if again:
                self._again[base_of(key)].append(key)

    def next(self, message: Message) -> str:
        """Return the key of the next message."""
        base = key_of(message)
        if again := self._again.get(base):
            return again.popleft()
        while True:
            self._alike[base] += 1
            key = base if self._alike[base] == 1 else f"{base}-{self._alike[base]}"
            if key not in self._known:
                return key


def read_letter(message: Message, *, key: str, position: int, returns: int = 0, names: Names = NO_NAMES) -> Letter:
    """What a message in a dead-letter queue says of itself. Nothing in it is trusted to be there or to be text. `names`
    are the headers in which other producers put id and type."""
    headers = message.headers
    exchange, key_at_first = origin_of(message)
    metadata = read_metadata(replace(message, exchange=exchange, routing_key=key_at_first), NO_TIME, names)
    is_named = bool(message.type) or any(name in headers for name in names.type)
    history = read_history(message)
    deaths = h.deaths(message.headers)
    death = deaths[0] if deaths else {}
    ours = _text(headers.get(h.REASON))
    died_at = _time(death.get("time"))
    failed_at = _time(headers.get(h.FAILED_AT))
    theirs = (None if ours else failure_of(headers)) or _NOTHING
    if theirs.reason:
        failed_at = _time(theirs.failed_at)
    by_broker = bool(death) and not (
        (ours or theirs.reason) and (failed_at is None or died_at is None or died_at < failed_at)
    )
    reason = _NAMES.get(_text(death.get("reason")), _text(death.get("reason"))) if by_broker else ours or theirs.reason
    target = _text(death.get("queue")) if by_broker else ""
    target = target or _text(headers.get(h.QUEUE)) or theirs.queue or _text(headers.get("x-first-death-queue"))
    error_type, error = _text(headers.get(h.ERROR_TYPE), 200), _text(headers.get(h.ERROR_MESSAGE))
    if theirs.reason:
        error_type, error = theirs.error_type[:200], theirs.error[:_TEXT]
    if by_broker:
        error_type, error = f"broker: {reason}", history.last_error or ""
    fingerprint = "" if by_broker else _text(headers.get(h.FINGERPRINT), 64)
    return Letter(
        key=key,
        position=position,
        event_id=theirs.event_id or metadata.event_id,
        event_type=metadata.event_type if is_named else theirs.event_type[:200] or metadata.event_type,
        version=metadata.version,
        reason=reason or "unknown",
        handler=_text(headers.get(h.HANDLER), 200) or theirs.handler[:200],
        target=target,
        error_type=error_type or "unknown",
        error_message=redact(error),
        fingerprint=fingerprint or _made_up(reason, target, metadata.event_type, *filter(None, [theirs.error_type])),
        attempt=theirs.attempt or history.attempt,
        first_failed_at=_time(history.first_failed_at),
        failed_at=died_at if by_broker else failed_at,
        worker=_text(headers.get(h.WORKER), 200) or theirs.worker[:200],
        correlation_id=metadata.correlation_id or "",
        is_foreign=not ours and h.EVENT_ID not in headers,
        returns=returns,
        message=message,
    )


def origin_of(message: Message) -> tuple[str, str]:
    """Exchange and routing key the message was first published with, also where RabbitMQ has dead-lettered it since."""
    deaths = h.deaths(message.headers)
    keys = deaths[-1].get("routing-keys") if deaths else None
    theirs = failure_of(message.headers)
    if theirs is not None and theirs.origin is not None and h.ROUTING_KEY not in message.headers:
        return theirs.origin
    if h.ROUTING_KEY in message.headers or not isinstance(keys, list) or not keys or not isinstance(keys[0], str):
        return origin(message)
    return _text(deaths[-1].get("exchange")), keys[0]


def _made_up(*parts: str) -> str:
    """Letters that no failure was written on are grouped by what little is known."""
    return hashlib.blake2b("\n".join(parts).encode("utf-8", "replace"), digest_size=8).hexdigest()


def _text(value: object, limit: int = _TEXT) -> str:
    return value[:limit] if isinstance(value, str) else ""


def _time(value: object) -> datetime | None:
    if isinstance(value, str) and len(value) <= 42:
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if not isinstance(value, datetime):
        return None
    try:
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
    except OverflowError:  # a time that is beyond the calendar in UTC
        return None
