"""A worker whose handlers run in transactions; its process dies once, at the arrow that `DIE_AT` names."""

import os
import signal
from pathlib import Path
from typing import Any

from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from holdfast import Context, Event, Handler, Worker
from holdfast.sql import Database
from holdfast.telemetry import Fact, Published, Relayed

SCHEMA = os.environ.get("HOLDFAST_SQL__SCHEMA", "holdfast")
engine = create_async_engine(os.environ.get("LEDGER_URL", "postgresql+asyncpg://localhost/ledger"))
database = Database(async_sessionmaker(engine))


class Paid(Event, type="ledger.paid", key="account"):
    account: str
    number: int


class Booked(Event, type="ledger.booked", key="account"):
    account: str
    number: int


def die(arrow: str) -> None:
    """End this process as a power cut would, the first time that it comes here."""
    if os.environ.get("DIE_AT") == arrow and not (died := Path(os.environ["DIED"])).exists():
        died.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def listen(fact: Fact) -> None:
    match fact:
        case Published(event_type="ledger.booked", outcome="confirmed"):
            die("an event is confirmed")
        case Relayed():
            die("the relay has noted")
        case _:
            pass


@event.listens_for(engine.sync_engine, "commit")
def committing(connection: Any) -> None:
    if connection.info.pop("has_events", False):
        die("the commit is sent")


@event.listens_for(engine.sync_engine, "before_cursor_execute")
def executing(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
    if statement.startswith(f"insert into {SCHEMA}.events"):
        connection.info["has_events"] = True
        die("the events are written")
    if statement.startswith(f"delete from {SCHEMA}.events"):
        die("the relay notes")


@event.listens_for(engine.sync_engine, "after_cursor_execute")
def executed(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
    if statement.startswith("select e.seq, event_id") and cursor.rowcount:
        die("the relay has read")


def after_the_commit(handler: Handler) -> Handler:
    async def call(event: Any, ctx: Context) -> None:
        await handler(event, ctx)
        die("the transaction is committed")

    return call


worker = Worker(f"{SCHEMA}.ledger", listeners=[listen], middleware=[after_the_commit])


@worker.handler(Paid, within=database)
async def book(event: Paid, ctx: Context, session: AsyncSession) -> None:
    await session.execute(text(f"insert into {SCHEMA}.entries values ('booked', {event.number})"))
    die("the effect is written")
    await ctx.publish(Booked(account=event.account, number=event.number))


@worker.handler(Booked, within=database)
async def see(event: Booked, ctx: Context, session: AsyncSession) -> None:
    await session.execute(text(f"insert into {SCHEMA}.entries values ('seen', {event.number})"))
