"""Waits that end with a connection: what ends with it is told once, as its loss."""

import asyncio
import contextlib
import gc
from typing import Any

import pytest

from holdfast.broker.amqp.lifetime import while_open


class Connection:
    def __init__(self) -> None:
        self.lost = asyncio.get_running_loop().create_future()

    @property
    def closing(self) -> "asyncio.Future[None]":
        return asyncio.ensure_future(asyncio.shield(self.lost))


async def test_what_a_wait_raises_that_nobody_waits_for_any_more_is_no_error_of_asyncio() -> None:
    """The connection is lost, and whoever waited is cancelled while the wait comes to its end."""
    connection, said, ending = Connection(), list[dict[str, Any]](), asyncio.Event()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
    go = asyncio.Event()

    async def answer() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ending.set()
            while not go.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await go.wait()
            raise OSError("lost")

    waiting = asyncio.create_task(while_open(connection, answer()))
    await asyncio.sleep(0)
    connection.lost.set_result(None)
    await ending.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    go.set()
    await asyncio.wait(asyncio.all_tasks() - {asyncio.current_task()})
    gc.collect()

    assert said == []
