"""The events that a session of SQLAlchemy publishes, until it commits.

An event remembers the transactions it was published in: the savepoints, innermost first, and the session's own. One
that is rolled back takes its events along. SQLAlchemy calls `before_commit` for released savepoints too, and ends a
transaction before it says that it was rolled back; `after_soft_rollback` alone names the right one.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import Session, SessionTransaction

from .dialects import statements_of
from .errors import OutsideTransaction, conflict_in
from .openers import clause
from .statements import Outgoing
from .waker import waker_of

_KEY = "holdfast.outbox"


@dataclass(frozen=True, slots=True)
class _Published:
    event: Outgoing
    schema: str
    within: tuple[SessionTransaction, ...]


class Pending:
    """What one session has published and not committed."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._events: list[_Published] = []
        self._written: str | None = None  # the schema, until the commit is done
        event.listen(session, "before_commit", self._before_commit)
        event.listen(session, "after_soft_rollback", self._after_soft_rollback)
        event.listen(session, "after_commit", self._after_commit)

    def add(self, outgoing: Outgoing, schema: str) -> None:
        """Keep an event until the session commits. Raises `OutsideTransaction`."""
        session = self._session
        if not session.in_transaction():
            if not session.autobegin:
                raise OutsideTransaction("the session has no transaction; publish the event inside session.begin()")
            session.begin()
        chain = list[SessionTransaction]()
        innermost = session.get_nested_transaction() or session.get_transaction()
        while innermost is not None:
            chain.append(innermost)
            innermost = innermost.parent
        self._events.append(_Published(outgoing, schema, tuple(chain)))

    def _before_commit(self, session: Session) -> None:
        if session.in_nested_transaction():
            return
        own = session.get_transaction()
        events = [published for published in self._events if published.within[-1] is own]
        self._events.clear()  # those of a session that was closed instead are gone with it
        if not events:
            return
        session.flush()
        connection = session.connection()
        for schema in dict.fromkeys(published.schema for published in events):
            rows = [published.event for published in events if published.schema == schema]
            try:
                for sql, params in statements_of(connection.dialect.name, schema).inserts(rows):
                    connection.execute(clause(sql), params)
            except Exception as error:
                raise conflict_in(error) or error from error
            self._written = schema

    def _after_soft_rollback(self, session: Session, previous: SessionTransaction) -> None:
        self._events = [published for published in self._events if previous not in published.within]

    def _after_commit(self, session: Session) -> None:
        if self._written is not None and not session.in_nested_transaction():
            schema, self._written = self._written, None
            waker_of(session.get_bind(), schema).wake()


def pending_of(session: Session) -> Pending:
    """Return what a session has published, which is kept with it."""
    pending: Any = session.info.get(_KEY)
    if pending is None or pending._session is not session:  # a factory may give all its sessions one `info`
        pending = session.info[_KEY] = Pending(session)
    return pending  # type: ignore[no-any-return]
