"""The threads that a database without asynchronous connections is used in."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event

from holdfast.sql import Database, Steps


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = create_engine(f"sqlite:///{tmp_path}/shop.db")
    yield engine
    engine.dispose()


class Held:
    """Steps that go on in their thread once they are let."""

    def __init__(self) -> None:
        self.has_begun, self.goes_on = asyncio.Event(), threading.Event()
        self._loop = asyncio.get_running_loop()

    def steps(self) -> Steps[None]:
        yield "select 1", {}
        self._loop.call_soon_threadsafe(self.has_begun.set)
        self.goes_on.wait()


async def test_a_caller_that_is_cancelled_waits_until_its_connection_is_back(engine: Engine) -> None:
    held, returned = Held(), list[Any]()
    event.listen(engine, "checkin", lambda connection, _: returned.append(connection))
    running = asyncio.create_task(Database(engine).run(held.steps()))
    await held.has_begun.wait()

    running.cancel()
    for _ in range(3):
        await asyncio.sleep(0)
    waits = not running.done()
    held.goes_on.set()
    await asyncio.wait([running])

    assert (waits, len(returned), running.cancelled()) == (True, 1, True)


async def test_a_caller_that_is_cancelled_does_not_wait_forever_for_its_thread(engine: Engine) -> None:
    held = Held()
    running = asyncio.create_task(Database(engine).run(held.steps()))
    await held.has_begun.wait()

    running.cancel()
    await asyncio.wait([running])
    held.goes_on.set()

    assert running.cancelled()
