"""Registrations that mypy accepts, and those that it refuses: an `ignore` that is not needed is an error of its own."""

import sqlite3

from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from holdfast import Context, Event, Retry, Worker
from holdfast.sql import Database, Outbox

engine = create_async_engine("postgresql+asyncpg://localhost/shop")
sync_engine = create_engine("postgresql+psycopg://localhost/shop")
sessions = Database(async_sessionmaker(engine))
connections = Database(engine)
sync_sessions = Database(sessionmaker(sync_engine))
worker = Worker("typed")


class Paid(Event, type="paid"):
    account: str


@worker.handler(Paid, within=sessions)
async def book(event: Paid, ctx: Context, session: AsyncSession) -> None:
    Outbox(source="typed").publish(session, event).event_id.upper()


@worker.handler(Paid, within=connections)
async def book_by_connection(event: Paid, ctx: Context, connection: AsyncConnection) -> None:
    (await Outbox(source="typed").publish(connection, event)).event_id.upper()


@worker.handler(Paid, within=sync_sessions)
def book_in_thread(event: Paid, ctx: Context, session: Session) -> None: ...


@worker.handler(Paid, within=Database.sqlite("ledger.db"))
def book_in_file(event: Paid, ctx: Context, connection: sqlite3.Connection) -> None: ...


@worker.handler(Paid, within=Database.django())
def book_by_orm(event: Paid, ctx: Context) -> None:
    Outbox(source="typed", using="default").publish(event).event_id.upper()


@worker.handler(Paid, within=connections)  # type: ignore[arg-type]
async def book_by_the_wrong_session(event: Paid, ctx: Context, session: AsyncSession) -> None: ...


@worker.handler(Paid, within=sync_sessions)  # type: ignore[arg-type]
async def book_on_the_loop(event: Paid, ctx: Context, session: AsyncSession) -> None: ...


@worker.handler(Paid, within=sessions)  # type: ignore[arg-type]
async def book_without_session(event: Paid, ctx: Context) -> None: ...


@worker.handler(Paid, name="typed_options", timeout=5, retry=Retry(attempts=2), publishes=[Paid], on_outage="pause")
async def book_with_options(event: Paid) -> None: ...


@worker.handler(Paid, timeout="5")  # type: ignore[call-overload, untyped-decorator]
async def book_with_a_text_for_a_number(event: Paid) -> None: ...


@worker.handler(Paid, retrys=Retry())  # type: ignore[call-overload, untyped-decorator]
async def book_with_a_misspelt_option(event: Paid) -> None: ...


@worker.handler(Paid, within=sessions, on_outage="wait")  # type: ignore[call-overload, untyped-decorator]
async def book_with_an_unknown_word(event: Paid, ctx: Context, session: AsyncSession) -> None: ...


class Pool:
    """What the lifespan of a worker yields."""

    def acquire(self) -> int:
        return 1


@worker.handler(Paid, name="typed_state")
async def book_with_typed_state(event: Paid, ctx: Context[Pool]) -> None:
    ctx.state.acquire().bit_length()
    ctx.state.release()  # type: ignore[attr-defined]


@worker.handler(Paid, within=sessions, name="typed_state_within")
async def book_with_typed_state_within(event: Paid, ctx: Context[Pool], session: AsyncSession) -> None:
    ctx.state.acquire().bit_length()
