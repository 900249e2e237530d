"""The statements of a database that keeps its events: positions that are given after the commit, and the cleaning."""

from collections.abc import Generator
from functools import cached_property
from typing import Any

from ..events import ConfigurationError, Envelope
from .statements import Params, Statements, kept_headers

CHUNK = 1000  # events that are given positions at once


class Kept(Statements):
    """Statements for tables that keep the events that were sent. `unsent` has a row for each that was not."""

    @cached_property
    def waiting(self) -> str:
        return self.table("unsent")

    @cached_property
    def _sending(self) -> str:
        return f"{self.table('events')} e join {self.waiting} u on u.seq = e.seq where u.shard in ({self.mine})"

    _order = "u.position"

    @cached_property
    def _floor(self) -> str:
        return f"(select position from {self.table('cursors')} where name = 'floor')"

    @cached_property
    def _fresh(self) -> str:
        """The condition of events without a position. All that are not above the floor have one, or never will."""
        positions = self.table("positions")
        return f"e.seq > {self._floor} and not exists (select 1 from {positions} p where p.seq = e.seq)"

    @cached_property
    def _pending(self) -> str:
        events, columns = self.table("events"), "e.written_at, e.due_at"
        return (
            f"(select {columns} from {events} e join {self.waiting} u on u.seq = e.seq "
            f"union all select {columns} from {events} e where {self._fresh}) pending"
        )

    @cached_property
    def _oldest(self) -> str:
        return f"(select {self.seconds(f'{self.now} - min(written_at)')} from {self._pending} where due_at is null)"

    @cached_property
    def sequencer(self) -> str:
        """Lock the row of the sequencer. Returns nothing while another transaction has it."""
        return self._locking("name = 'sequencer'")

    def _locking(self, where: str) -> str:
        """A row of the cursors, locked. SQLite's drivers begin a transaction for no other statement than a change."""
        if not self._is_postgres:
            return f"update {self.table('cursors')} set position = position where {where} returning position"
        return f"select position from {self.table('cursors')} where {where} for update skip locked"

    @cached_property
    def sequence(self) -> str:
        """Give the next positions to events that have none, in the order in which they were written."""
        cursors, positions = self.table("cursors"), self.table("positions")
        return (
            f"insert into {positions} (position, seq) "
            f"select (select position from {cursors} where name = 'sequencer') + row_number() over (order by seq), seq "
            f"from (select e.seq from {self.table('events')} e where {self._fresh} order by e.seq limit {CHUNK}) fresh "
            "returning 1"
        )

    @cached_property
    def enqueue(self) -> str:
        """Have the events with new positions sent."""
        cursors, positions = self.table("cursors"), self.table("positions")
        return (
            f"insert into {self.waiting} (seq, position, shard) select p.seq, p.position, e.shard "
            f"from {positions} p join {self.table('events')} e on e.seq = p.seq "
            f"where p.position > (select position from {cursors} where name = 'sequencer')"
        )

    def send_again(self, envelope: Envelope) -> Generator[tuple[str, Params], Any, bool]:
        """Have an event that was sent before sent again, as it is now, at its position. Returns False where it is not
        kept. Raises `ConfigurationError` for one that is not sent yet."""
        events, positions, event = (
            self.table("events"),
            self.table("positions"),
            {"event_id": envelope.metadata.event_id},
        )
        headers = "cast(:headers as jsonb)" if self._is_postgres else ":headers"
        change = f"update {events} set headers = {headers}, content_type = :content_type, body = :body"
        now = {"headers": kept_headers(envelope), "content_type": envelope.content_type, "body": envelope.body}
        if not (yield f"{change} where event_id = :event_id returning 1", event | now):
            return False
        enqueue = (
            f"insert into {self.waiting} (seq, position, shard) select p.seq, p.position, e.shard "
            f"from {positions} p join {events} e on e.seq = p.seq where e.event_id = :event_id "
            "on conflict do nothing returning 1"
        )
        if not (yield enqueue, event):
            raise ConfigurationError(
                f"event {envelope.metadata.event_id} is not sent yet: a relay sends it; `holdfast outbox held` lists "
                "those that a broker refused"
            )
        return True

    @cached_property
    def advance(self) -> str:
        """Move the sequencer to the last position."""
        cursors, positions = self.table("cursors"), self.table("positions")
        return (
            f"update {cursors} set position = (select max(position) from {positions}) where name = 'sequencer' "
            "returning position"
        )

    @cached_property
    def writers(self) -> str:
        """Return the highest number that can be seen, and the transactions that may have written a lower one.

        A transaction that inserts has locked the table before it takes a number.
        """
        highest = f"coalesce((select max(seq) from {self.table('events')}), 0)"
        if not self._is_postgres:  # one transaction writes at a time
            return f"select {highest}, ''"
        return (
            f"select {highest}, coalesce((select string_agg(virtualtransaction || ':' || coalesce(pid, 0), ' ') "
            "from pg_locks where locktype = 'relation' and mode = 'RowExclusiveLock' "
            "and database = (select oid from pg_database where datname = current_database()) "
            f"and relation = cast('{self.table('events')}' as regclass)), '')"
        )

    @cached_property
    def raise_floor(self) -> str:
        cursors = self.table("cursors")
        return f"update {cursors} set position = {self._seq} where name = 'floor' and position < {self._seq}"

    @cached_property
    def past(self) -> str:
        """Return the first events that were sent and are kept no longer, a thousand at most."""
        positions, unsent = self.table("positions"), self.waiting
        return (
            f"select first.seq, first.position from (select p.seq, p.position from {positions} p where not exists "
            f"(select 1 from {unsent} u where u.seq = p.seq) order by p.position limit 1000) first "
            f"join {self.table('events')} e on e.seq = first.seq where e.written_at < {self.ago('keep')}"
        )

    @cached_property
    def forgot(self) -> str:
        """Note the last position that was forgotten. Those before it may still be there: they were not sent."""
        last = self._whole("position")
        return f"update {self.table('cursors')} set position = {last} where name = 'sweeper' and position < {last}"

    @cached_property
    def forget_positions(self) -> str:
        return f"delete from {self.table('positions')} where seq in {self.listed('seqs')}"

    @cached_property
    def forget_events(self) -> str:
        return f"delete from {self.table('events')} where seq in {self.listed('seqs')} returning 1"
