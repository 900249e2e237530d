"""A worker with a database: what a handler changes, and that it has handled the event, are committed as one.

    holdfast run app:worker
    holdfast publish payment.received '{"account": "a-1", "cents": 950}'

The row in `inbox` and the new balance are one transaction, so there is no moment at which one is there without the
other: a worker killed before the commit has changed nothing and the event is handled again; one killed after it finds
the row and changes nothing more. That holds whatever becomes of Redis, and for as long as the rows are kept. This
handler therefore does without a claim (`idempotent=False`); one that also calls somebody else keeps its claim, which
spares it most repeats.

What it does not cover: an effect outside this database. And the database has to be one for all workers: SQLite is, for
the processes of one machine.
"""

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from holdfast import Context, Event, Worker

FILE = Path("ledger.db")
TABLES = """
create table if not exists inbox (handler text, event_id text, primary key (handler, event_id)) without rowid;
create table if not exists accounts (name text primary key, cents integer not null);
"""


class PaymentReceived(Event, type="payment.received"):
    account: str
    cents: int


@contextmanager
def database() -> Iterator[sqlite3.Connection]:
    """A transaction on a connection of its own: all of it, or after an exception nothing."""
    connection = sqlite3.connect(FILE, timeout=10, isolation_level=None)
    try:
        connection.execute("begin immediate")  # writers wait for each other here, and not half-way
        with connection:
            yield connection
    finally:
        connection.close()


@asynccontextmanager
async def lifespan() -> AsyncIterator[None]:
    connection = sqlite3.connect(FILE)
    connection.execute("pragma journal_mode = wal")
    connection.executescript(TABLES)
    connection.close()
    yield


worker = Worker("ledger", lifespan=lifespan)


# `def`, not `async def`: it runs in a thread, where waiting for a disk stops nobody else.
@worker.handler(PaymentReceived, idempotent=False)
def book(event: PaymentReceived, ctx: Context) -> None:
    with database() as db:
        new = db.execute("insert or ignore into inbox values ('book', ?)", (ctx.event_id,)).rowcount
        if not new:
            ctx.log.info("payment.known")
            return
        db.execute(
            "insert into accounts values (?, ?) on conflict (name) do update set cents = cents + excluded.cents",
            (event.account, event.cents),
        )
