"""Cancellations that nobody asks for: up to Python 3.12 a `TaskGroup` that failed leaves one on its task."""

import asyncio
import contextlib
from typing import Any

import pytest

from holdfast import Context, Event, Reject, Retry, RetryLater, Settings, Worker, fixed
from holdfast.broker.amqp.lifetime import lost_as_error
from holdfast.telemetry import cancellations, end, heed_cancellation
from holdfast.testing import Harness


class Placed(Event, type="groups.placed"):
    order_id: str


async def _fail() -> None:
    raise ValueError("one of the group")


async def fail_in_a_group() -> None:
    """Fail as a group of tasks does; on Python 3.13 too a cancellation is left."""
    task = asyncio.current_task()
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_fail())
    finally:
        if task is not None and not task.cancelling():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)


async def handled_by(handle: Any, retry: Retry) -> Harness:
    worker = Worker("shop", settings=Settings(_env_file=None))  # type: ignore[call-arg]
    worker.handler(Placed, retry=retry)(handle)
    async with Harness(worker) as harness:
        await harness.publish(Placed(order_id="o-1"))
        await harness.settle()
    return harness


async def test_a_handler_that_catches_what_a_group_raised_has_succeeded() -> None:
    async def handle(event: Placed, ctx: Context) -> None:
        try:
            await fail_in_a_group()
        except* ValueError:
            pass

    harness = await handled_by(handle, Retry(attempts=3))

    assert ([run.attempt for run in harness.handled], harness.dead_letters) == ([1], [])


async def test_what_a_group_raised_is_the_failure_of_its_handler() -> None:
    async def handle(event: Placed) -> None:
        await fail_in_a_group()

    [letter] = (await handled_by(handle, Retry(attempts=3, give_up_on=(ExceptionGroup,)))).dead_letters

    assert (letter.reason, letter.attempt, letter.error_type) == ("refused", 1, "ExceptionGroup")


async def test_a_handler_may_reject_after_a_group_that_failed() -> None:
    async def handle(event: Placed) -> None:
        try:
            await fail_in_a_group()
        except* ValueError:
            raise Reject("no") from None

    [letter] = (await handled_by(handle, Retry(attempts=3))).dead_letters

    assert (letter.reason, letter.attempt) == ("refused", 1)


async def test_a_handler_may_ask_for_a_time_after_a_group_that_failed() -> None:
    async def handle(event: Placed, ctx: Context) -> None:
        if ctx.attempt == 1:
            try:
                await fail_in_a_group()
            except* ValueError:
                pass
            raise RetryLater(after=77)

    harness = await handled_by(handle, Retry(attempts=3, backoff=fixed(5)))

    assert ([one.delay for one in harness.retries], len(harness.handled)) == ([77], 1)


async def test_a_lost_connection_is_an_error_also_after_a_group_that_failed() -> None:
    async def lose() -> None:
        with pytest.raises(ExceptionGroup):
            await fail_in_a_group()
        before = cancellations()
        with pytest.raises(ConnectionError), lost_as_error():
            raise asyncio.CancelledError  # as aiormq ends whoever waits
        heed_cancellation(before)

    await asyncio.create_task(lose())


async def test_a_cancellation_is_heeded_also_after_a_group_that_failed() -> None:
    begun = asyncio.Event()

    async def swallow() -> None:
        with pytest.raises(ExceptionGroup):
            await fail_in_a_group()
        before = cancellations()
        try:
            begun.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass
        heed_cancellation(before)

    task = asyncio.create_task(swallow())
    await begun.wait()
    task.cancel()
    await asyncio.wait({task})

    assert task.cancelled()


async def test_tasks_that_do_not_end_are_cancelled_and_then_left() -> None:
    asked, go = asyncio.Event(), asyncio.Event()

    async def ignore() -> None:
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                asked.set()

    stubborn, willing = asyncio.create_task(ignore()), asyncio.create_task(asyncio.Event().wait())

    await end((stubborn, willing), patience=0.01)

    assert (asked.is_set(), stubborn.done(), willing.cancelled()) == (True, False, True)
    go.set()
    await stubborn
