"""The statements that read the journal: of one aggregate, by position, and by who caused what."""

from functools import cached_property

from .kept import Kept

ERASED = "application/x-holdfast-erased"
"""The content type of an event whose body was erased."""

NOTHING_READ = -1
"""The position of a reader that is to begin with the first event, and the offset of a stream before it is recorded."""


class History(Kept):
    """Statements for readers of kept events."""

    @cached_property
    def _columns(self) -> str:
        return (
            "e.event_id, e.event_type, e.version, e.key, e.source, e.correlation_id, e.causation_id, e.caused_by, "
            f"{self.seconds('e.time')}, cast(e.headers as text), e.content_type, e.body, e.stream, e.stream_version"
        )

    @cached_property
    def of_aggregate(self) -> str:
        """Return the events of one aggregate past a version, in order."""
        return (
            f"select null, {self._columns} from {self.table('events')} e where e.key = :key and e.stream = :stream "
            "and e.stream_version is not null and e.stream_version > :after order by e.stream_version"
        )

    @cached_property
    def snapshot(self) -> str:
        snapshots = self.table("snapshots")
        return f"select stream_version, shape, state from {snapshots} where stream = :stream and key = :key"

    @cached_property
    def enter_projection(self) -> str:
        row = f"(name, position) values (:name, {NOTHING_READ})"
        return f"insert into {self.table('cursors')} {row} on conflict (name) do nothing"

    @cached_property
    def projection(self) -> str:
        """Return the position of a projection and lock its row. Returns nothing while another transaction has it."""
        return self._locking("name = :name")

    @cached_property
    def bounds(self) -> str:
        """Return the last position that was given, the first that is kept, and the last that was forgotten."""
        cursors, positions = self.table("cursors"), self.table("positions")
        last, forgot = (f"(select position from {cursors} where name = '{name}')" for name in ("sequencer", "sweeper"))
        return f"select {last}, (select min(position) from {positions}), {forgot}"

    def select(self, *conditions: str, last: bool = False) -> str:
        """Return events with their positions, in that order, each with its age in seconds; with `last`, backwards.

        Parameters are those of the conditions and `most`. Events have the name `e`, their positions `p`.
        """
        return (
            f"select p.position, {self._columns}, {self.seconds(f'{self.now} - e.written_at')} "
            f"from {self.table('positions')} p join {self.table('events')} e on e.seq = p.seq "
            f"where {' and '.join(conditions)} order by p.position {'desc' if last else 'asc'} limit :most"
        )

    @cached_property
    def after(self) -> str:
        """The condition of events past a position."""
        return f"p.position > {self._whole('after')}"

    @cached_property
    def up_to(self) -> str:
        """The condition of events up to a position."""
        return f"p.position <= {self._whole('up_to')}"

    @cached_property
    def since(self) -> str:
        """The condition of events that were written since a time, in seconds since 1970."""
        return f"{self.seconds('e.written_at')} >= :since"

    @cached_property
    def is_due(self) -> str:
        """The condition of events that are not for later."""
        return f"(e.due_at is null or e.due_at <= {self.now})"

    @cached_property
    def correlated(self) -> str:
        """The condition of events that have one root with an event."""
        roots = f"select coalesce(correlation_id, event_id) from {self.table('events')} where event_id = :event_id"
        return f"(e.correlation_id in ({roots}) or e.event_id in ({roots}))"

    @cached_property
    def page(self) -> str:
        """Return events of some types past a position."""
        return self.select(self.after, f"e.event_type in {self._texts('types')}")

    @cached_property
    def move_projection(self) -> str:
        return f"update {self.table('cursors')} set position = {self._whole('position')} where name = :name"

    @cached_property
    def begin_projection(self) -> str:
        """Note on the row of a projection up to which position events may have been deleted before it began."""
        return f"update {self.table('cursors')} set token = :gone where name = :name"

    @cached_property
    def begun_behind(self) -> str:
        return f"select token from {self.table('cursors')} where name = :name"

    @cached_property
    def cursor(self) -> str:
        return f"select position from {self.table('cursors')} where name = :name"

    @cached_property
    def tape(self) -> str:
        """Lock the row of a stream that is recorded. Returns the offset and the id of its last event that is here."""
        lock = " for update" if self._is_postgres else ""
        return f"select position, token from {self.table('cursors')} where name = :name{lock}"

    @cached_property
    def move_tape(self) -> str:
        return (
            f"update {self.table('cursors')} set position = {self._whole('position')}, token = :event_id "
            "where name = :name"
        )

    @cached_property
    def reached(self) -> str:
        """Return whether a projection has come to an event."""
        return (
            f"select 1 from {self.table('events')} e join {self.table('positions')} p on p.seq = e.seq "
            f"join {self.table('cursors')} c on c.name = :name "
            "where e.event_id = :event_id and c.position >= p.position"
        )

    @cached_property
    def keep_snapshot(self) -> str:
        snapshots = self.table("snapshots")
        return (
            f"insert into {snapshots} (stream, key, stream_version, shape, state) "
            "values (:stream, :key, :version, :shape, :state) on conflict (stream, key) do update set "
            "stream_version = excluded.stream_version, shape = excluded.shape, state = excluded.state"
        )

    @cached_property
    def inbox_rows(self) -> str:
        """Return the queues and the digests, in hexadecimal, of the rows of some events in some queues."""
        digest = "encode(event, 'hex')" if self._is_postgres else "lower(hex(event))"
        rows = f"{self.table('inbox')} where queue in {self._texts('queues')}"
        if self._is_postgres:
            texts = "select json_array_elements_text(cast(:events as json)) as value"
            return f"select queue, {digest} from {rows} and event in (select decode(value, 'hex') from ({texts}) given)"
        return f"select queue, {digest} from {rows} and {digest} in {self._texts('events')}"

    @cached_property
    def unsent_of(self) -> str:
        """Return those of some events that no relay has sent."""
        return (
            f"select e.event_id from {self.waiting} u join {self.table('events')} e on e.seq = u.seq "
            f"where e.event_id in {self._texts('ids')}"
        )

    @cached_property
    def readers(self) -> str:
        """Return the positions of projections, and the offsets of streams that are recorded, by their names."""
        like = "name like 'projection:%' or name like 'stream:%'"
        return f"select name, position from {self.table('cursors')} where {like} order by name"

    @cached_property
    def rebuild(self) -> str:
        """Have a projection begin anew. Returns its row, if there is one."""
        return f"update {self.table('cursors')} set position = {NOTHING_READ} where name = :name returning name"

    @cached_property
    def lock_sequencer(self) -> str:
        """Wait for the row of the sequencer, and lock it."""
        lock = " for update" if self._is_postgres else ""
        return f"select position from {self.table('cursors')} where name = 'sequencer'{lock}"

    @cached_property
    def known_ids(self) -> str:
        return f"select event_id from {self.table('events')} where event_id in {self._texts('ids')}"

    @cached_property
    def position_written(self) -> str:
        """Give positions to events that were written in this transaction, and that are not to be sent."""
        events, cursors, positions = self.table("events"), self.table("cursors"), self.table("positions")
        return (
            f"insert into {positions} (position, seq) "
            f"select (select position from {cursors} where name = 'sequencer') + row_number() over (order by seq), seq "
            f"from {events} where event_id in {self._texts('ids')}"
        )

    @cached_property
    def unsent_of_key(self) -> str:
        """Return how many events of a key are not sent yet."""
        events, positions, unsent = self.table("events"), self.table("positions"), self.waiting
        return (
            f"select count(*) from {events} e where e.key = :key and (e.seq in (select seq from {unsent}) "
            f"or not exists (select 1 from {positions} p where p.seq = e.seq))"
        )

    @cached_property
    def erase(self) -> str:
        """Take away the bodies of a key's events."""
        empty = "cast('' as bytea)" if self._is_postgres else "x''"
        return (
            f"update {self.table('events')} set body = {empty}, content_type = '{ERASED}', headers = '{{}}' "
            f"where key = :key and content_type <> '{ERASED}' returning 1"
        )

    @cached_property
    def erase_snapshots(self) -> str:
        return f"delete from {self.table('snapshots')} where key = :key"
