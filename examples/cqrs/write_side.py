"""The write side: decides what a command does to an account, and writes that into a journal, which is the truth.

    holdfast run write_side:worker

A command that comes twice (its worker died before the ack, say) finds what was decided the first time in the journal
and publishes the same event again, with the same id: nobody hears of two.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from messages import EVENTS, Command, Deposit, Deposited, Happened, Withdraw, WithdrawalRefused, Withdrawn

from holdfast import Context, Worker

FILE = Path("journal.db")
TABLE = """
create table if not exists journal (
    account text, number integer, command text unique, type text, body text, primary key (account, number)
) without rowid
"""

worker = Worker("accounts")


@worker.handler(Deposit, Withdraw, concurrency=1)
def decide(command: Deposit | Withdraw, ctx: Context) -> None:
    """`def`, since SQLite blocks; one at a time, so that commands are decided in the order they came."""
    with journal() as db:
        event = decided(db, ctx.event_id)
        if event is None:
            event = decision(command, history(db, command.account))
            row = (event.account, event.number, ctx.event_id, event.__event_type__, event.model_dump_json())
            db.execute("insert into journal values (?, ?, ?, ?, ?)", row)
    ctx.publish(event)


def decision(command: Command, past: Iterable[Happened]) -> Happened:
    """What becomes of a command, all that happened before being known. Pure: this is the domain, and easy to test."""
    balance, number = 0, 1
    for event in past:
        number = event.number + 1
        match event:
            case Deposited():
                balance += event.cents
            case Withdrawn():
                balance -= event.cents
            case WithdrawalRefused():
                pass
    told = {"account": command.account, "number": number, "cents": command.cents}
    if isinstance(command, Deposit):
        return Deposited(**told)
    return Withdrawn(**told) if command.cents <= balance else WithdrawalRefused(**told)


def history(db: sqlite3.Connection, account: str | None = None) -> Iterator[Happened]:
    """All that happened, to one account or to all, in order."""
    which, values = ("", ()) if account is None else ("where account = ?", (account,))
    rows = db.execute(f"select type, body from journal {which} order by account, number", values)
    return (EVENTS[kind].model_validate_json(body) for kind, body in rows)


def decided(db: sqlite3.Connection, command: str) -> Happened | None:
    """The event that a command led to when it came before."""
    row = db.execute("select type, body from journal where command = ?", (command,)).fetchone()
    return None if row is None else EVENTS[row[0]].model_validate_json(row[1])


@contextmanager
def journal() -> Iterator[sqlite3.Connection]:
    """A transaction: all of it, or after an exception nothing."""
    with closing(sqlite3.connect(FILE, timeout=10, isolation_level=None)) as db:
        db.execute("begin immediate")
        try:
            db.execute(TABLE)
            yield db
        except BaseException:
            db.execute("rollback")
            raise
        db.execute("commit")
