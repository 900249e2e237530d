"""The statements for Holdfast's tables in the dialect of each database."""

from dataclasses import dataclass
from functools import cached_property, lru_cache

from .statements import Statements

DIALECTS = ("postgresql", "mysql", "sqlite")


def dialect_of(name: str) -> str:
    """Return the dialect by its name in SQLAlchemy, in a URL or in Django: MariaDB's is MySQL's."""
    return "mysql" if name == "mariadb" else name


@lru_cache(maxsize=100)
def statements_of(dialect: str, schema: str = "holdfast") -> Statements:
    """Return the statements for the tables of one schema: the same object each time, which keeps their text."""
    kind = MySql if (dialect := dialect_of(dialect)) == "mysql" else Statements
    return kind(dialect, schema)


@dataclass(frozen=True)
class MySql(Statements):
    """The statements for MySQL and MariaDB, which have no RETURNING for all of them: what changes rows answers one for
    each. The schema's name begins the tables'."""

    @cached_property
    def _key(self) -> str:
        return "`key`"

    @cached_property
    def _headers(self) -> str:
        return "cast(headers as char)"

    @cached_property
    def now(self) -> str:
        return "(timestampdiff(microsecond, '1970-01-01', utc_timestamp(6)) / 1e6)"

    def listed(self, numbers: str) -> str:
        return f"(select value from {self._json(numbers)})"

    @staticmethod
    def _json(numbers: str) -> str:
        return f"json_table(:{numbers}, '$[*]' columns (value bigint path '$')) as listed"

    @cached_property
    def enter(self) -> str:
        """See `Statements.enter`. MariaDB, by its kind of comment, does not wait for a transaction that has the event;
        MySQL waits for its lock time-out."""
        return (
            "/*M! set statement innodb_lock_wait_timeout = 0 for */ "
            f"insert ignore into {self.table('inbox')} (queue, event, fingerprint) "
            "values (:queue, :event, :fingerprint)"
        )

    @cached_property
    def beat(self) -> str:
        return (
            f"insert into {self.table('cursors')} (name, token, lease_until) values (:name, :token, "
            f"{self.later('lease')}) on duplicate key update lease_until = values(lease_until)"
        )

    @cached_property
    def take(self) -> str:
        return (
            f"update {self.table('cursors')} set token = :token, lease_until = {self.later('lease')} where name like "
            f":kind and (lease_until is null or lease_until < {self.now}) order by name limit :wanted"
        )

    @cached_property
    def sent(self) -> str:
        events = self.table("events")  # each row by its number: a scan would wait for rows of other transactions
        return (
            f"delete e from {self._json('seqs')} straight_join {events} e force index (primary) "
            f"on e.seq = listed.value where e.shard in ({self.mine})"
        )

    @cached_property
    def hold(self) -> str:
        held = self.table("held")
        return (
            f"insert into {held} (seq, `key`, event_id, attempts, next_try, error) "
            f"select seq, :key, :event_id, 1, {self.later('pause')}, :error from {self.table('events')} "
            f"where seq = {self._seq} and shard in ({self.mine}) on duplicate key update "
            f"attempts = {held}.attempts + 1, next_try = values(next_try), error = values(error)"
        )

    @cached_property
    def _seq(self) -> str:
        return "cast(:seq as signed)"

    @cached_property
    def release(self) -> str:
        return f"update {self.table('held')} set next_try = {self.now} where seq = {self._seq}"

    @cached_property
    def held_event(self) -> str:
        return f"{super().held_event} for update"

    @cached_property
    def sweep(self) -> str:
        return f"delete from {self.table('inbox')} where handled_at < {self.now} - :ttl limit 1000"
