"""The read side: a model made for questions, from events alone. It can be thrown away and made anew at any time.

    holdfast run read_side:worker
    holdfast journal rebuild statement && python rebuild.py

Its rows and the position that it has reached are one commit, so it is exactly the history up to there.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

from messages import Deposited, WithdrawalRefused, Withdrawn
from write_side import FILE, database

from holdfast import Worker
from holdfast.journal import Projection, Recorded

TABLES = """
create table if not exists entries (position integer primary key, account text, cents integer);
create view if not exists balances as select account, sum(cents) as cents from entries group by account;
"""

worker = Worker("statement")
statement = Projection("statement")
worker.include(statement, within=database)


@statement.begins
def empty(connection: sqlite3.Connection) -> None:
    for command in TABLES.split(";"):
        connection.execute(command)
    connection.execute("delete from entries")


@statement.on(Deposited, Withdrawn, WithdrawalRefused)
def enter(event: Deposited | Withdrawn | WithdrawalRefused, at: Recorded, connection: sqlite3.Connection) -> None:
    connection.execute("insert into entries values (?, ?, ?)", (at.position, event.account, worth(event)))


def worth(event: Deposited | Withdrawn | WithdrawalRefused) -> int:
    match event:
        case Deposited():
            return event.cents
        case Withdrawn():
            return -event.cents
        case WithdrawalRefused():
            return 0


def balances() -> dict[str, int]:
    with reading() as db:
        return dict(db.execute("select account, cents from balances order by account").fetchall())


def entries() -> int:
    with reading() as db:
        return int(db.execute("select count(*) from entries").fetchone()[0])


def forget() -> None:
    with reading() as db, db:
        db.execute("delete from entries")


@contextmanager
def reading() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(FILE, timeout=10)) as db:
        db.executescript(TABLES)
        yield db
