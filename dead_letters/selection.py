"""Which letters are meant: the filters of the command line and of the page, as one value."""

import json
import re
from dataclasses import dataclass
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
        for clause, moment in (("failed_at >= ?", self.since), ("failed_at <= ?", self.until)):
            if moment is not None:
                clauses.append(clause)
                values.append(moment.timestamp())
        return " AND ".join(clauses), values


def moment(text: str, now: datetime) -> datetime:
    """A point in time: ISO 8601 (UTC unless it says otherwise), or a span before now such as `90s`, `15m`, `2h`, `3d`.

    Raises `ConfigurationError`."""
    try:
        if found := _SPAN.fullmatch(text.strip()):
            return now - timedelta(seconds=int(found[1]) * _SECONDS[found[2]])
        parsed = datetime.fromisoformat(text.strip())
    except (ValueError, OverflowError):
        raise ConfigurationError(f"{text[:60]!r} is no time; write 15m, 2h, 3d or 2026-01-31T12:00") from None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
