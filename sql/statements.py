"""The statements of Holdfast's own tables, as text, for PostgreSQL and SQLite, with the parameters as each driver
writes them.

`dialects.statements_of` returns those of a dialect.

A parameter is `:name`. Every value that is passed is a text, bytes, a small number or None: drivers guess the types of
other values, each in a way of its own. Times are seconds since 1970, and lists are JSON.
"""

import json
import re
import zlib
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from itertools import islice
from typing import Any, TypeAlias

from ..events import Envelope, Metadata, PublishError, headers

VERSION = 1
"""The version of the schema that this release reads and writes."""

SHARDS = 16

_AT_ONCE = 1000  # events in one INSERT
_FIRST, _LAST = -62_135_596_800.0, 253_402_300_799.0  # seconds since 1970 of the years 1 to 9999

Params: TypeAlias = Mapping[str, Any]
Row: TypeAlias = tuple[Any, ...]
_NAME = re.compile(r"(?<![:\w]):([a-z_]\w*)")
_COLUMNS = (
    *("shard", "event_id", "event_type", "version", "key", "source", "correlation_id", "causation_id", "caused_by"),
    *("stream", "stream_version", "time", "due_at", "headers", "content_type", "body"),
)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """An event to be written, with its delay in seconds. One of an aggregate has its name, and the version it makes."""

    envelope: Envelope
    delay: float | None = None
    stream: str | None = None
    stream_version: int | None = None


def time_of(seconds: float) -> datetime:
    """Return the time that a row has; for one beyond the calendar, which databases keep, the calendar's end."""
    return datetime.fromtimestamp(min(max(seconds, _FIRST), _LAST), UTC)


def shard_of(metadata: Metadata) -> int:
    """Return the shard of an event: that of its key, or of its id where it has no key."""
    lane = metadata.event_id if metadata.key is None else metadata.key
    return zlib.crc32(lane.encode("utf-8", "surrogatepass")) % SHARDS


def kept_headers(envelope: Envelope) -> str:
    """Return an event's headers as they are kept until it is sent: as JSON. Raises `PublishError` for other values."""
    metadata, extra = envelope.metadata, dict(envelope.headers)
    if metadata.traceparent is not None:
        extra[headers.TRACEPARENT] = metadata.traceparent
    if not extra:
        return "{}"
    try:
        text = json.dumps(extra, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise PublishError(f"{metadata.event_type}: the outbox keeps headers as JSON: {error}") from None
    if "\\u0000" in text.replace("\\\\", ""):  # without the backslashes that are in the headers themselves
        raise PublishError(f"{metadata.event_type}: a header has a NUL, which PostgreSQL cannot keep")
    return text


@lru_cache(maxsize=1_000)
def numbered(sql: str) -> tuple[str, tuple[str, ...]]:
    """Return a statement with its parameters as asyncpg writes them, `$1`, and their names in that order."""
    names = tuple(dict.fromkeys(_NAME.findall(sql)))
    return _NAME.sub(lambda match: f"${names.index(match[1]) + 1}", sql), names


@lru_cache(maxsize=1_000)
def in_percent(sql: str) -> str:
    """Return a statement with its parameters as psycopg writes them, `%(name)s`."""
    return _NAME.sub(r"%(\1)s", sql.replace("%", "%%"))


@dataclass(frozen=True)
class Statements:
    """The statements for the tables of one schema in one dialect. In SQLite, the schema's name begins the tables'."""

    dialect: str
    schema: str = "holdfast"
    _inserts: dict[int, str] = field(default_factory=dict, repr=False, compare=False)

    def table(self, name: str) -> str:
        return f"{self.schema}.{name}" if self._is_postgres else f"{self.schema}_{name}"

    @cached_property
    def _is_postgres(self) -> bool:
        return self.dialect == "postgresql"

    @cached_property
    def _key(self) -> str:
        """The column `key`, whose name is a word of some dialects."""
        return "key"

    @cached_property
    def _headers(self) -> str:
        return "cast(headers as text)"

    @cached_property
    def now(self) -> str:
        return "clock_timestamp()" if self._is_postgres else "((julianday('now') - 2440587.5) * 86400.0)"

    def later(self, seconds: str) -> str:
        """Return the time that is a parameter's seconds from now."""
        if self._is_postgres:
            return f"{self.now} + make_interval(secs => cast(:{seconds} as double precision))"
        return f"{self.now} + :{seconds}"

    def ago(self, seconds: str) -> str:
        """Return the time that is a parameter's seconds ago: one for the whole statement, so an index finds it."""
        return f"(select {self.later(seconds).replace('+', '-', 1)})"

    def among(self, rows: str) -> str:
        """Return the condition that a row is among those of a query (`from ...`), which is carried out once."""
        return f"ctid = any(array(select ctid {rows}))" if self._is_postgres else f"rowid in (select rowid {rows})"

    def seconds(self, expression: str) -> str:
        """Return a time, or the difference of two, in seconds."""
        return f"cast(extract(epoch from {expression}) as double precision)" if self._is_postgres else expression

    def listed(self, numbers: str) -> str:
        """Return the numbers of a parameter that holds JSON."""
        if self._is_postgres:
            return f"(select cast(value as bigint) from json_array_elements_text(cast(:{numbers} as json)))"
        return f"(select value from json_each(:{numbers}))"

    def _texts(self, texts: str) -> str:
        """Return the texts of a parameter that holds JSON."""
        if self._is_postgres:
            return f"(select json_array_elements_text(cast(:{texts} as json)))"
        return f"(select value from json_each(:{texts}))"

    @cached_property
    def enter(self) -> str:
        """Write an inbox row. Returns one row if it is new, and none if another transaction has the event or had it.

        In PostgreSQL the second of two would wait at the row for the end of the first: the advisory lock, which only
        one of them gets, lets it answer at once."""
        row, is_free = ":queue, :event, :fingerprint", "true"
        if self._is_postgres:
            row = "cast(:queue as text), cast(:event as bytea), cast(:fingerprint as bytea)"
            name = "cast(:queue as text) || encode(cast(:event as bytea), 'hex')"
            is_free = f"pg_try_advisory_xact_lock(hashtextextended({name}, 0))"
        return (
            f"insert into {self.table('inbox')} (queue, event, fingerprint) select {row} where {is_free} "
            "on conflict do nothing returning 1"
        )

    def enter_and_read(self, select: str) -> str:
        """Write an inbox row and, if it is new, select a row, whose columns are null if there is none. PostgreSQL's."""
        return (
            f"with entered as ({self.enter}), found as ({select}) select found.* from entered left join found on true"
        )

    @cached_property
    def known(self) -> str:
        return f"select fingerprint from {self.table('inbox')} where queue = :queue and event = :event"

    @cached_property
    def withdraw(self) -> str:
        return f"delete from {self.table('inbox')} where queue = :queue and event = :event"

    @cached_property
    def mine(self) -> str:
        """Return the shards that are leased under a token."""
        return (
            f"select position from {self.table('cursors')} "
            f"where token = :token and name like 'shard:%' and lease_until > {self.now}"
        )

    @cached_property
    def beat(self) -> str:
        """Write that a relay is alive."""
        return (
            f"insert into {self.table('cursors')} (name, token, lease_until) values (:name, :token, "
            f"{self.later('lease')}) on conflict (name) do update set lease_until = excluded.lease_until"
        )

    @cached_property
    def alive(self) -> str:
        return f"select count(*) from {self.table('cursors')} where name like 'relay:%' and lease_until > {self.now}"

    @cached_property
    def renew(self) -> str:
        """Renew the leases that a relay still has."""
        return (
            f"update {self.table('cursors')} set lease_until = {self.later('lease')} "
            f"where token = :token and name like 'shard:%' and lease_until > {self.now}"
        )

    @cached_property
    def take(self) -> str:
        """Take up to `wanted` leases whose names are like `kind` and that nobody has. Returns a row for each.

        They are chosen once: PostgreSQL may carry out a subquery of the condition for each row, and then takes more.
        """
        cursors = self.table("cursors")
        is_free = f"(lease_until is null or lease_until < {self.now})"
        free = (
            f"select name as free_name from {cursors} where name like :kind and {is_free} order by name limit :wanted"
        )
        change = f"update {cursors} set token = :token, lease_until = {self.later('lease')}"
        if not self._is_postgres:
            return f"{change} where name in ({free}) and {is_free} returning 1"
        chosen = f"with free as materialized ({free} for update skip locked)"
        return f"{chosen} {change} from free where name = free_name and {is_free} returning 1"

    @cached_property
    def give(self) -> str:
        """Give leases back, by their positions."""
        return (
            f"update {self.table('cursors')} set token = null, lease_until = null "
            f"where token = :token and name like 'shard:%' and position in {self.listed('positions')}"
        )

    @cached_property
    def leave(self) -> str:
        """Remove a relay that ends, and those that died long ago."""
        day_ago = f"{self.now} - interval '1 day'" if self._is_postgres else f"{self.now} - 86400"
        return (
            f"delete from {self.table('cursors')} where name like 'relay:%' "
            f"and (token = :token or lease_until < {day_ago})"
        )

    @cached_property
    def waiting(self) -> str:
        """The table whose rows are events to be sent."""
        return self.table("events")

    @cached_property
    def _sending(self) -> str:
        """The events that a relay may read, with what orders them."""
        return f"{self.table('events')} e where e.shard in ({self.mine})"

    _order = "e.seq"

    @cached_property
    def _pending(self) -> str:
        """All events that are not sent."""
        return f"{self.table('events')} e"

    @cached_property
    def _read(self) -> str:
        return (
            f"select e.seq, event_id, event_type, version, e.{self._key}, source, correlation_id, causation_id, "
            f"{self.seconds('e.time')}, {self._headers}, content_type, body, "
            f"{self.seconds(f'due_at - {self.now}')}, {self.seconds(f'{self.now} - written_at')}, caused_by, "
            f"(select attempts from {self.table('held')} h where h.seq = e.seq) "
            f"from {self._sending} "
            f"and (due_at is null or due_at < {self.later('ahead')}) and e.seq not in {self.listed('in_hand')} "
            f"and not exists (select 1 from {self.table('held')} h "
            f"where h.key = coalesce(e.key, e.event_id) and (h.seq <> e.seq or h.next_try > {self.now})) "
            f"order by {self._order} limit :most"
        )

    def reading(self, wanted: Params) -> Generator[tuple[str, Params], list[Row], list[Row]]:
        """Return the events of the relay's shards that can be sent now, in the order in which they were written.

        Of a key that is held, only the event that is held, once it may be tried again. Each event comes with the number
        of times that it was refused.

        PostgreSQL follows the index that orders events, up to the limit, whatever it believes of the tables. Else it
        may read all that wait and sort them, or compile a plan that looks dear.
        """
        if self._is_postgres:
            yield "select set_config('enable_sort', 'off', true), set_config('jit', 'off', true)", {}
        return (yield self._read, wanted)

    @cached_property
    def sent(self) -> str:
        """Note that events are confirmed, if the relay still has the lease of their shards."""
        return f"delete from {self.waiting} where seq in {self.listed('seqs')} and shard in ({self.mine})"

    @cached_property
    def free(self) -> str:
        return f"delete from {self.table('held')} where seq in {self.listed('seqs')}"

    @cached_property
    def hold(self) -> str:
        """Hold an event, and with it the later ones of its key, if the relay still has the lease of its shard."""
        held = self.table("held")
        return (
            f"insert into {held} (seq, key, event_id, attempts, next_try, error) "
            f"select seq, :key, :event_id, 1, {self.later('pause')}, :error from {self.table('events')} "
            f"where seq = {self._seq} and shard in ({self.mine}) on conflict (seq) do update set "
            f"attempts = {held}.attempts + 1, next_try = excluded.next_try, error = excluded.error"
        )

    @cached_property
    def _seq(self) -> str:
        return self._whole("seq")

    def _whole(self, name: str) -> str:
        """A number that may be larger than drivers take a whole number to be: it is passed as a text."""
        return f"cast(cast(:{name} as text) as bigint)" if self._is_postgres else f"cast(:{name} as integer)"

    @cached_property
    def held(self) -> str:
        """Return the events that are held, with the seconds until each is tried again."""
        return (
            f"select seq, {self._key}, event_id, attempts, {self.seconds(f'next_try - {self.now}')}, error "
            f"from {self.table('held')} order by seq"
        )

    @cached_property
    def release(self) -> str:
        return f"update {self.table('held')} set next_try = {self.now} where seq = {self._seq} returning 1"

    @cached_property
    def held_event(self) -> str:
        """Return an event that is held, and lock it."""
        lock = " for update" if self._is_postgres else ""
        return (
            f"select event_id, event_type, version, {self._key}, source, correlation_id, causation_id, "
            f"{self.seconds('e.time')}, {self._headers}, content_type, body, caused_by "
            f"from {self.table('events')} e "
            f"where seq = {self._seq} and seq in (select seq from {self.table('held')}){lock}"
        )

    @cached_property
    def drop(self) -> str:
        return f"delete from {self.waiting} where seq = {self._seq}"

    @cached_property
    def unhold(self) -> str:
        return f"delete from {self.table('held')} where seq = {self._seq}"

    @cached_property
    def _oldest(self) -> str:
        """The seconds since the first event that waits, and is not delayed, was written."""
        age = self.seconds(f"{self.now} - written_at")
        return f"(select {age} from {self._pending} where due_at is null order by seq limit 1)"

    @cached_property
    def figures(self) -> str:
        """Return how many events wait (100,001 are more than are counted), the age of the oldest, and how many are
        held."""
        pending, held = self._pending, self.table("held")
        return (
            f"select (select count(*) from (select 1 from {pending} limit 100001) as counted), "
            f"{self._oldest}, "
            f"(select count(*) from {held})"
        )

    @cached_property
    def sweep(self) -> str:
        """Delete inbox rows that are older than `ttl` seconds, a thousand at most. Returns one row for each."""
        inbox = self.table("inbox")
        old = self.among(f"from {inbox} where handled_at < {self.ago('ttl')} limit 1000")
        return f"delete from {inbox} where {old} returning 1"

    @cached_property
    def notify(self) -> str:
        return "select pg_notify('holdfast', :schema)"

    @cached_property
    def version(self) -> str:
        """Return the version of the schema, and the position of the journal where there is one."""
        return f"select name, position from {self.table('cursors')} where name in ('schema', 'sequencer')"

    def insert(self, events: Iterable[Outgoing]) -> tuple[str, Params]:
        """Return one INSERT for all events, in order."""
        rows = [self._values(event) for event in events]
        if len(rows) not in self._inserts:
            self._inserts[len(rows)] = self._insert(len(rows))
        return self._inserts[len(rows)], {f"{name}_{n}": row[name] for n, row in enumerate(rows) for name in row}

    def inserts(self, events: Iterable[Outgoing]) -> Generator[tuple[str, Params], Any, None]:
        """Yield INSERTs for all events, in order: drivers take no more than some 32,000 parameters in one."""
        left = iter(events)
        while few := list(islice(left, _AT_ONCE)):
            yield self.insert(few)

    def _insert(self, count: int) -> str:
        rows = ", ".join(f"({', '.join(self._value(name, f'{name}_{n}') for name in _COLUMNS)})" for n in range(count))
        columns = ", ".join(self._key if name == "key" else name for name in _COLUMNS)
        return f"insert into {self.table('events')} ({columns}) values {rows}"

    def _value(self, column: str, parameter: str) -> str:
        if column == "due_at":
            return self.later(parameter)
        if self._is_postgres and column == "time":
            return f"to_timestamp(cast(:{parameter} as double precision))"
        return f"cast(:{parameter} as jsonb)" if self._is_postgres and column == "headers" else f":{parameter}"

    @staticmethod
    def _values(event: Outgoing) -> dict[str, Any]:
        envelope, metadata = event.envelope, event.envelope.metadata
        values = (
            *(shard_of(metadata), metadata.event_id, metadata.event_type, metadata.version, metadata.key),
            *(metadata.source, metadata.correlation_id, metadata.causation_id, metadata.caused_by),
            *(event.stream, event.stream_version),
            *(metadata.time.timestamp(), event.delay, kept_headers(envelope), envelope.content_type, envelope.body),
        )
        return dict(zip(_COLUMNS, values, strict=True))
