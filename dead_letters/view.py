"""Dead letters as people and programs see them: the terminal, the page and JSON show these values."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ..telemetry import is_secret, neutral, redact
from .archive import to_json
from .index import Group
from .letter import NO_TIME, Letter
from .operations import Operation

BODY = 20_000  # characters of a body that are shown; the whole is exported or downloaded
_FIELDS = (
    "position", "event_id", "event_type", "version", "reason", "handler", "error_type", "error_message", "fingerprint",
    "attempt", "first_failed_at", "failed_at", "worker", "replayed",
)  # fmt: skip
_PARSED = 1 << 20  # bytes of a body that are looked at
_HEX = 4_096  # bytes of a binary body that are shown


def age(moment: datetime | None, now: datetime | None = None) -> str:
    """Say how long ago a moment was; `?` where it is unknown."""
    return "?" if moment is None else span(((now or datetime.now(UTC)) - moment).total_seconds())


def span(seconds: float) -> str:
    """Write how long something lasts: `90 s`, `3 min`, `5 h`, `2 d`, from two of a unit on."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f} {unit}"
    return f"{max(0.0, seconds) // 1:.0f} s"


def scaled(counts: Sequence[int], top: int) -> list[int]:
    """Scale counts for a chart: the highest becomes `top`, zero stays zero, and any other is at least one."""
    most = max(counts, default=0)
    return [max(1, round(top * count / most)) if count else 0 for count in counts]


def body_text(body: bytes) -> tuple[str, str]:
    """Return a body as text that no terminal obeys, and its form: `JSON` is indented, `text` is shown as it is, and
    `binary` in hexadecimal."""
    try:
        text = body.decode() if len(body) <= _PARSED else body[:_PARSED].decode(errors="ignore")
    except UnicodeDecodeError:
        return "\n".join(_hex(body[at : at + 16], at) for at in range(0, min(len(body), _HEX), 16)), "binary"
    try:
        text, form = json.dumps(json.loads(text), indent=2, ensure_ascii=False), "JSON"
    except (ValueError, RecursionError):
        form = "text"
    return neutral(text, BODY, lines=True), form


def when(moment: datetime | None) -> str:
    """Write a moment in UTC, to the second; nothing where it is unknown."""
    return "" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def across(groups: Mapping[str, Sequence[Group]]) -> list[tuple[Group, int, dict[str, int]]]:
    """Join the groups of several queues: one group of each kind of failure, the last seen, with the number of letters
    in all and in each queue, the largest first."""
    kinds = dict[str, list[tuple[str, Group]]]()
    for queue, some in groups.items():
        for group in some:
            kinds.setdefault(group.fingerprint, []).append((queue, group))
    joined = []
    for alike in kinds.values():
        counts = {queue: group.count for queue, group in alike}
        last = max((group for _, group in alike), key=lambda group: group.last_seen or NO_TIME)
        joined.append((last, sum(counts.values()), counts))
    return sorted(joined, key=lambda kind: -kind[1])


def header_text(name: str, value: object) -> str:
    """Return the value of a header or property as text that no terminal obeys, without the secrets in it."""
    if is_secret(name):
        return "***"
    text = value.isoformat() if isinstance(value, datetime) else value if isinstance(value, str) else repr(value)
    return neutral(redact(text), 4_000, lines=True)


def letter_json(letter: Letter, *, whole: bool = False) -> dict[str, Any]:
    """Return a letter for programs; `whole` adds the message and the traceback."""
    value = {"id": letter.key} | {name: getattr(letter, name) for name in _FIELDS}
    value |= {"queue": letter.target, "bytes": len(letter.message.body)}
    if whole:
        value |= {"traceback": letter.traceback, "chain": letter.chain, "message": to_json(letter.message)}
    return value


def facts_of(letter: Letter) -> dict[str, str]:
    """Return what is known of a letter besides its error and its message, in the order in which it is shown."""
    facts = {
        "event": f"{letter.event_type} v{letter.version}",
        "event id": letter.event_id,
        "reason": letter.reason,
        "died in": letter.target,
        "handler": letter.handler,
        "attempt": str(letter.attempt),
        "first failed": _moment(letter.first_failed_at),
        "died": _moment(letter.failed_at),
        "worker": letter.worker,
        "group": letter.fingerprint,
        "came back from": letter.replayed,
        "lent and returned": str(letter.returns),
    }
    return {name: value for name, value in facts.items() if value}


def counts_of(operation: Operation, between: str = ", ") -> str:
    """Write how many letters of an operation are in which state."""
    return between.join(f"{count} {state}" for state, count in operation.counts.items() if count)


def _moment(moment: datetime | None) -> str:
    return "" if moment is None else f"{when(moment)} ({age(moment)} ago)"


def _hex(part: bytes, at: int) -> str:
    shown = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
    return f"{at:08x}  {part.hex(' '):<47}  {shown}"
