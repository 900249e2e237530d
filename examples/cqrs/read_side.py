"""The read side: a model made for questions, from events alone. It can be thrown away and made anew at any time.

    holdfast run read_side:worker
    python rebuild.py

An entry has the number of its event, so that an event which comes twice, or after a later one, changes nothing that it
should not. That is why this handler needs no claim.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from messages import Deposited, Happened, WithdrawalRefused, Withdrawn

from holdfast import Worker

FILE = Path("statement.db")
TABLES = """
create table if not exists entries (account text, number integer, cents integer, primary key (account, number));
create view if not exists balances as select account, sum(cents) as cents from entries group by account;
"""

worker = Worker("statement")


@worker.handler(Deposited, Withdrawn, WithdrawalRefused, idempotent=False)
def note(event: Deposited | Withdrawn | WithdrawalRefused) -> None:
    with statement() as db:
        enter(db, [event])


def rebuild(events: Iterable[Happened]) -> None:
    """Forget everything, and read it from the events again; who asks meanwhile sees the old or the new."""
    with statement() as db:
        db.execute("delete from entries")
        enter(db, events)


def balances() -> dict[str, int]:
    with statement() as db:
        return dict(db.execute("select account, cents from balances order by account").fetchall())


def entries() -> int:
    with statement() as db:
        return int(db.execute("select count(*) from entries").fetchone()[0])


def enter(db: sqlite3.Connection, events: Iterable[Happened]) -> None:
    rows = [(event.account, event.number, worth(event)) for event in events]
    db.executemany("insert into entries values (?, ?, ?) on conflict do nothing", rows)


def worth(event: Happened) -> int:
    match event:
        case Deposited():
            return event.cents
        case Withdrawn():
            return -event.cents
        case WithdrawalRefused():
            return 0


@contextmanager
def statement() -> Iterator[sqlite3.Connection]:
    """A transaction: all of it, or after an exception nothing."""
    with closing(sqlite3.connect(FILE, timeout=10)) as db:
        db.executescript(TABLES)
        with db:
            yield db
