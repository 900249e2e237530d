"""Notifications next to the application's commits, while its engine is disposed of: no connection is left open."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.util import await_only
from waiting import eventually

from holdfast.sql.waker import waker_of

pytestmark = pytest.mark.server


@pytest.fixture
async def engine(postgres_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(postgres_url.replace("postgresql:", "postgresql+asyncpg:"))
    yield engine
    await engine.dispose()


@pytest.fixture
def engine_in_threads(postgres_url: str) -> Iterator[Any]:
    engine = create_engine(postgres_url.replace("postgresql:", "postgresql+psycopg:"))
    yield engine
    engine.dispose()


async def test_an_engine_disposed_of_in_a_notification_leaves_no_connection(engine: AsyncEngine) -> None:
    opened, is_sent, goes_on = list[Any](), asyncio.Event(), asyncio.Event()

    def hold(*_: Any) -> None:
        is_sent.set()
        await_only(goes_on.wait())

    event.listen(engine.sync_engine, "connect", lambda connection, _: opened.append(connection.driver_connection))
    event.listen(engine.sync_engine, "reset", hold)
    waker_of(engine.sync_engine, "holdfast").wake()
    await is_sent.wait()

    await engine.dispose()
    goes_on.set()
    await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}), return_exceptions=True)

    assert [connection.is_closed() for connection in opened] == [True]


async def test_an_engine_disposed_of_in_a_thread_s_notification_leaves_no_connection(engine_in_threads: Any) -> None:
    opened, is_sent, goes_on = list[Any](), threading.Event(), threading.Event()

    def hold(*_: Any) -> None:
        is_sent.set()
        goes_on.wait()

    event.listen(engine_in_threads, "connect", lambda connection, _: opened.append(connection))
    event.listen(engine_in_threads, "reset", hold)
    waker_of(engine_in_threads, "holdfast").wake()
    await asyncio.to_thread(is_sent.wait)

    engine_in_threads.dispose()
    goes_on.set()
    await eventually(lambda: [connection.closed for connection in opened], [True])


def test_an_engine_disposed_of_as_its_notification_begins_opens_no_connection(engine_in_threads: Any) -> None:
    opened, waker = list[Any](), waker_of(engine_in_threads, "holdfast")
    event.listen(engine_in_threads, "connect", lambda connection, _: opened.append(connection))
    waker.wake()
    timer: Any = waker._sending
    timer.cancel()  # its thread has begun, and has not come to its function yet

    engine_in_threads.dispose()
    timer.function(*timer.args)

    assert [connection.closed for connection in opened] in ([], [True])


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # of Python 3.12, for a fork next to threads
def test_an_engine_disposed_of_in_a_forked_process_leaves_its_parent_s_connections(engine_in_threads: Any) -> None:
    waker = waker_of(engine_in_threads, "holdfast")
    waker.wake()
    thread: Any = waker._sending
    thread.join()

    if (child := os.fork()) == 0:
        try:
            engine_in_threads.dispose(close=False)
        finally:
            os._exit(0)
    os.waitpid(child, 0)

    with engine_in_threads.connect() as connection:
        assert connection.scalar(text("select 1")) == 1


def test_an_engine_has_one_waker_of_each_schema(engine_in_threads: Any) -> None:
    for _ in range(3):
        waker_of(engine_in_threads, "holdfast")

    assert len(engine_in_threads.dispatch.engine_disposed) == 1
