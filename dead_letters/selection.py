"""The letters that a command or a page is about: filters as people write them, and the selection they stand for."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any

from ..events import ConfigurationError

_SPAN = re.compile(r"(\d+)\s*([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


@dataclass(frozen=True, slots=True)
class Selection:
    """All letters for which each filter that is given holds. `ids` are keys (or their beginnings) or event ids."""

    ids: tuple[str, ...] = ()
    reason: str | None = None
    event_type: str | None = None
    fingerprint: str | None = None
    handler: str | None = None
    text: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    limit: int | None = None

    def where(self) -> tuple[str, list[Any]]:
        """The condition in SQL with its parameters."""
        clauses, values = ["1"], list[Any]()
        for column, value in (
            ("reason", self.reason),
            ("event_type", self.event_type),
            ("handler", self.handler),
        ):
            if value is not None:
                clauses.append(f"{column} = ?")
                values.append(value)
        if self.fingerprint is not None:
            clauses.append("substr(fingerprint, 1, length(?)) = ?")
            values += [self.fingerprint] * 2
        if self.ids:
            meant = "substr(letters.key, 1, length(value)) = value OR letters.event_id = value"
            clauses.append(f"EXISTS (SELECT 1 FROM json_each(?) WHERE {meant})")
            values.append(json.dumps(self.ids))
        if self.text:
            clauses.append("(instr(lower(error_message), lower(?)) OR instr(lower(error_type), lower(?)))")
            values += [self.text] * 2
        for clause, time in (("failed_at >= ?", self.since), ("failed_at <= ?", self.until)):
            if time is not None:
                clauses.append(clause)
                values.append(time.timestamp())
        return " AND ".join(clauses), values


@dataclass(frozen=True, slots=True)
class Filters:
    """A `Selection` in words: the options of `holdfast dead`, and the query of the page's addresses.

    `type` is an event's type; `moment` reads `since` and `until`."""

    id: tuple[str, ...] = ()
    reason: str | None = None
    type: str | None = None
    fingerprint: str | None = None
    handler: str | None = None
    text: str | None = None
    since: str | None = None
    until: str | None = None
    limit: int | None = None

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, str]]) -> "Filters":
        """Read names and values, those of an address for instance. Other names, and empty values, are left out."""
        names = {field.name for field in fields(cls)} - {"id", "limit"}
        texts = [(name, value.strip()) for name, value in pairs if value.strip()]
        given = {name: value for name, value in texts if name in names}
        return cls(tuple(value for name, value in texts if name == "id"), **given)  # type: ignore[arg-type]

    def pairs(self) -> list[tuple[str, str]]:
        """Return names and values, of the filters that are given."""
        values = [(field.name, getattr(self, field.name)) for field in fields(self) if field.name != "id"]
        return [*(("id", key) for key in self.id), *((name, str(value)) for name, value in values if value is not None)]

    def selection(self) -> Selection:
        """Return the selection, with times counted from now. Raises `ConfigurationError` for a time that cannot be
        read."""
        now = datetime.now(UTC)
        return Selection(
            ids=self.id,
            reason=self.reason,
            event_type=self.type,
            fingerprint=self.fingerprint,
            handler=self.handler,
            text=self.text,
            since=moment(self.since, now) if self.since else None,
            until=moment(self.until, now) if self.until else None,
            limit=self.limit,
        )


def moment(text: str, now: datetime) -> datetime:
    """Read a point in time: ISO 8601 (UTC unless it says otherwise), or a span before now such as `90s`, `15m`, `2h`,
    `3d`. Raises `ConfigurationError`."""
    try:
        if span := _SPAN.fullmatch(text.strip()):
            return now - timedelta(seconds=int(span[1]) * _SECONDS[span[2]])
        parsed = datetime.fromisoformat(text.strip())
    except (ValueError, OverflowError):
        raise ConfigurationError(f"{text[:60]!r} is no time; write 15m, 2h, 3d or 2026-01-31T12:00") from None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
