"""The letters that a command or a page is about, by filters as people write them."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from ..events import ConfigurationError

_SPAN = re.compile(r"(\d+)\s*([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
# A whole key does not mean those of letters that are alike, which end in -2, -3 ...
_HAS_ID = """EXISTS (SELECT 1 FROM json_each(?) WHERE letters.event_id = value OR (
    substr(letters.key, 1, length(value)) = value AND substr(letters.key, length(value) + 1, 1) != '-'))"""
_HOLDS = "EXISTS (SELECT 1 FROM messages WHERE messages.position = letters.position AND holds(message, ?))"
_OF_KEY = "EXISTS (SELECT 1 FROM messages WHERE messages.position = letters.position AND is_of_key(message, ?))"


@dataclass(frozen=True, slots=True)
class Selection:
    """All letters for which each filter that is given holds: the options of `holdfast dead`, and the query of the
    page's addresses.

    `id` has keys (or their beginnings) or event ids; `type` is an event's type; `text` is in the error, the words of
    `payload` in the body; `key` is that of the event's aggregate; `moment` reads `since` and `until`; `limit` keeps the
    first so many. Raises `ConfigurationError` for a time that cannot be read."""

    id: tuple[str, ...] = ()
    reason: str | None = None
    type: str | None = None
    fingerprint: str | None = None
    handler: str | None = None
    text: str | None = None
    payload: str | None = None
    correlation: str | None = None
    key: str | None = None
    since: str | None = None
    until: str | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        _timestamp(self.since), _timestamp(self.until)

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, str]]) -> "Selection":
        """Read names and values, those of an address for instance. Other names, and empty values, are left out."""
        names = {field.name for field in fields(cls)} - {"id", "limit"}
        texts = [(name, value.strip()) for name, value in pairs if value.strip()]
        given: dict[str, Any] = {name: value for name, value in texts if name in names}
        return cls(tuple(value for name, value in texts if name == "id"), **given)

    def fixed(self) -> "Selection":
        """Return the same with spans of time counted from now on."""
        since, until = (moment(text).isoformat() if text else None for text in (self.since, self.until))
        return replace(self, since=since, until=until)

    def pairs(self) -> list[tuple[str, str]]:
        """Return names and values, of the filters that are given."""
        values = [(field.name, getattr(self, field.name)) for field in fields(self) if field.name != "id"]
        return [*(("id", key) for key in self.id), *((name, str(value)) for name, value in values if value is not None)]

    def where(self) -> tuple[str, list[Any]]:
        """Return the condition in SQL with its parameters. Spans of time are counted from now."""
        conditions = {
            "reason = ?": self.reason,
            "event_type = ?": self.type,
            "handler = ?": self.handler,
            "instr(fingerprint, ?) = 1": self.fingerprint,
            _HAS_ID: json.dumps(self.id) if self.id else None,
            "instr(lower(error_type || char(10) || error_message), lower(?))": self.text,
            "correlation_id = ?": self.correlation,
            "failed_at >= ?": _timestamp(self.since),
            "failed_at <= ?": _timestamp(self.until),
            _HOLDS: self.payload,
            _OF_KEY: self.key,
        }
        given = {clause: value for clause, value in conditions.items() if value is not None}
        return " AND ".join(["1", *given]), list(given.values())


def moment(text: str, now: datetime | None = None) -> datetime:
    """Read a point in time: ISO 8601 (UTC unless it says otherwise), or a span before now such as `90s`, `15m`, `2h`,
    `3d`. Raises `ConfigurationError`."""
    try:
        if span := _SPAN.fullmatch(text.strip()):
            return (now or datetime.now(UTC)) - timedelta(seconds=int(span[1]) * _SECONDS[span[2]])
        parsed = datetime.fromisoformat(text.strip())
    except (ValueError, OverflowError):
        raise ConfigurationError(f"{text[:60]!r} is no time; write 15m, 2h, 3d or 2026-01-31T12:00") from None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def _timestamp(text: str | None) -> float | None:
    return moment(text).timestamp() if text else None
