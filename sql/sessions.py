"""The events that a session of SQLAlchemy publishes, until it commits.

An event remembers the transactions it was published in: the savepoints, innermost first, and the session's own. One
that is rolled back takes its events along. SQLAlchemy calls `before_commit` for released savepoints too, and ends a
transaction before it says that it was rolled back; `after_soft_rollback` alone names the right one.
"""

from dataclasses import dataclass

from sqlalchemy import event
from sqlalchemy.orm import Session, SessionTransaction

from .dialects import statements_of
from .errors import OutsideTransaction, raise_explained
from .openers import on_alchemy
from .statements import Outgoing
from .steps import play_in_thread
from .waker import waker_of

_KEY, _COMMITTING = "holdfast.outbox", "holdfast.committing"  # in the `info` of a session


@dataclass(frozen=True, slots=True)
class _Published:
    event: Outgoing
    schema: str
    within: tuple[SessionTransaction, ...]


class Pending:
    """What one session has published and not committed."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._events: list[_Published] = []
        self._written: str | None = None  # the schema, until the commit is done

    def add(self, outgoing: Outgoing, schema: str) -> None:
        """Keep an event until the session commits. Raises `OutsideTransaction`."""
        session = self.session
        if not session.in_transaction():
            if not session.autobegin:
                raise OutsideTransaction("the session has no transaction; publish the event inside session.begin()")
            session.begin()
        chain = list[SessionTransaction]()
        innermost = session.get_nested_transaction() or session.get_transaction()
        while innermost is not None:
            chain.append(innermost)
            innermost = innermost.parent
        published = _Published(outgoing, schema, tuple(chain))
        if chain[-1] is session.info.get(_COMMITTING):  # by a hook, behind ours
            self._write([published])
        else:
            self._events.append(published)

    def write_all(self) -> None:
        """Write what the transaction that is being committed has published."""
        if self._events:
            self.session.flush()
        own = self.session.get_transaction()
        events = [published for published in self._events if published.within[-1] is own]
        self._events.clear()  # those of a session that was closed instead are gone with it
        self._write(events)

    def _write(self, events: list[_Published]) -> None:
        for schema in dict.fromkeys(published.schema for published in events):
            rows = [published.event for published in events if published.schema == schema]
            dialect = self.session.connection().dialect.name
            try:
                play_in_thread(statements_of(dialect, schema).inserts(rows), on_alchemy(self.session, dialect))
            except Exception as error:  # noqa: BLE001 (it is raised again)
                raise_explained(error)
            self._written = schema

    def drop(self, rolled_back: SessionTransaction) -> None:
        """Forget what was published in a transaction or savepoint."""
        self._events = [published for published in self._events if rolled_back not in published.within]

    def wake(self) -> None:
        """Wake the relays of what was committed."""
        if self._written is not None:
            schema, self._written = self._written, None
            waker_of(self.session.get_bind(), schema).wake()


def pending_of(session: Session) -> Pending:
    """Return what a session publishes, which is kept with it."""
    pending = _known(session)
    if pending is None:
        pending = session.info[_KEY] = Pending(session)
    return pending


def _known(session: Session) -> Pending | None:
    """Return what a session has published, if it has. A factory may give all its sessions one `info`."""
    pending: Pending | None = session.info.get(_KEY)
    return pending if pending is not None and pending.session is session else None


# Of all sessions, also of those that publish nothing: to listen to each one anew takes longer than an INSERT.


@event.listens_for(Session, "before_commit")
def _before_commit(session: Session) -> None:
    if session.in_nested_transaction():
        return
    if (pending := _known(session)) is not None:
        pending.write_all()
    session.info[_COMMITTING] = session.get_transaction()


@event.listens_for(Session, "after_soft_rollback")
def _after_soft_rollback(session: Session, previous: SessionTransaction) -> None:
    if session.info.get(_COMMITTING) is previous:
        del session.info[_COMMITTING]
    if (pending := _known(session)) is not None:
        pending.drop(previous)


@event.listens_for(Session, "after_commit")
def _after_commit(session: Session) -> None:
    if session.in_nested_transaction():
        return
    session.info.pop(_COMMITTING, None)
    if (pending := _known(session)) is not None:
        pending.wake()
