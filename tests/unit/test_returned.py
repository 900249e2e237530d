"""What a handler returns: work that is left is done, work that cannot be done is an error, all else means nothing."""

import asyncio
import concurrent.futures
import functools
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from builders import some_settings

from holdfast import ConfigurationError, Context, Event, Handler, Reject, Retry, Worker
from holdfast.testing import Harness, call


class Placed(Event, type="returned.placed"):
    order: str


RAN: list[str] = []
"""The orders that a handler dealt with, whatever its form."""


async def charge(event: Placed, ctx: Context) -> None:
    await asyncio.sleep(0)
    RAN.append(event.order)


def logged(function: Callable[..., Any]) -> Callable[..., Any]:
    """A plain decorator, as there are many: it returns what the function returns."""

    @functools.wraps(function)
    def call_it(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return call_it


class Charger:
    async def __call__(self, event: Placed) -> None:
        RAN.append(event.order)

    @logged
    async def method(self, event: Placed, ctx: Context) -> None:
        RAN.append(event.order)


class PlainCharger:
    def __call__(self, event: Placed) -> Awaitable[None]:
        return charge(event, None)  # type: ignore[arg-type]


def by_delegation(event: Placed, ctx: Context) -> Awaitable[None]:
    return charge(event, ctx)


async def twice_async(event: Placed, ctx: Context) -> Awaitable[None]:
    return charge(event, ctx)


async def by_a_task(event: Placed, ctx: Context) -> Awaitable[None]:
    return asyncio.create_task(charge(event, ctx))


def by_a_thread(event: Placed) -> "concurrent.futures.Future[None]":
    done: concurrent.futures.Future[None] = concurrent.futures.Future()

    def work() -> None:
        RAN.append(event.order)
        done.set_result(None)

    threading.Thread(target=work).start()
    return done


FORMS = {
    "decorated": logged(charge),
    "decorated twice": logged(logged(charge)),
    "partial of a decorated one": functools.partial(logged(charge)),
    "partial": functools.partial(charge),
    "async object": Charger(),
    "partial of an async object": functools.partial(Charger()),
    "decorated method": Charger().method,
    "plain object": PlainCharger(),
    "plain function": by_delegation,
    "async in async": twice_async,
    "task": by_a_task,
    "future of a thread": by_a_thread,
}


@pytest.fixture(autouse=True)
def ran() -> list[str]:
    RAN.clear()
    return RAN


def a_worker(function: Callable[..., Any], **options: Any) -> Worker:
    worker = Worker("returned", settings=some_settings(), middleware=options.pop("middleware", ()))
    worker.handler(Placed, name="charge", retry=Retry(attempts=2), **options)(function)
    return worker


@pytest.mark.parametrize("function", FORMS.values(), ids=FORMS)
async def test_a_handler_has_run_once_its_event_is_handled(function: Callable[..., Any], ran: list[str]) -> None:
    async with Harness(a_worker(function)) as h:
        await h.publish(Placed(order="o-1"))
        await h.settle()

    assert ran == ["o-1"] and len(h.handled) == 1


@pytest.mark.parametrize("function", FORMS.values(), ids=FORMS)
async def test_call_runs_a_handler_to_its_end(function: Callable[..., Any], ran: list[str]) -> None:
    await call(function, Placed(order="o-1"))

    assert ran == ["o-1"]


async def test_what_fails_in_work_that_was_returned_fails_the_handler() -> None:
    @logged
    async def fails(event: Placed) -> None:
        raise Reject("no such account")

    async with Harness(a_worker(fails)) as h:
        await h.publish(Placed(order="o-1"))
        await h.settle()

    [letter] = h.dead_letters
    assert (letter.reason, letter.error) == ("refused", "no such account")
    with pytest.raises(Reject):
        await call(fails, Placed(order="o-1"))


async def test_work_that_was_returned_ends_within_the_time_of_its_handler() -> None:
    @logged
    async def hangs(event: Placed) -> None:
        await asyncio.Event().wait()

    worker = Worker("returned", settings=some_settings())
    worker.handler(Placed, name="charge", retry=Retry(attempts=1), timeout=5)(hangs)
    async with Harness(worker, patience=2) as h:
        await h.publish(Placed(order="o-1"))
        await h.settle()

    assert [letter.error_type for letter in h.dead_letters] == ["holdfast.consumer.errors.HandlerTimeout"]


def numbers() -> Iterator[int]:
    yield 1


async def more_numbers() -> AsyncIterator[int]:
    yield 1


def an_event(event: Placed) -> Any:
    return event


def a_list_of_events(event: Placed) -> Any:
    return [event]


def an_exception(event: Placed) -> Exception:
    return Reject("no")


def an_exception_class(event: Placed) -> type[Exception]:
    return Reject


def a_generator(event: Placed) -> Iterator[int]:
    return numbers()


async def an_async_generator(event: Placed) -> AsyncIterator[int]:
    return more_numbers()


NOT_DONE = {
    "event": (an_event, "returned the event Placed; publish it with ctx.publish"),
    "list of events": (a_list_of_events, "returned a list of events; publish each with ctx.publish"),
    "exception": (an_exception, r"returned the exception Reject\('no'\); raise it"),
    "exception class": (an_exception_class, "returned the exception .*Reject.*; raise it"),
    "generator": (a_generator, "returned a generator, and nothing of it ran"),
    "async generator": (an_async_generator, "returned a generator, and nothing of it ran"),
}


@pytest.mark.parametrize(("function", "fault"), NOT_DONE.values(), ids=NOT_DONE)
async def test_a_value_with_which_something_was_to_be_done_is_dead_lettered_at_once(
    function: Callable[..., Any], fault: str
) -> None:
    async with Harness(a_worker(function)) as h:
        await h.publish(Placed(order="o-1"))
        await h.settle()

    [letter] = h.dead_letters
    assert (letter.reason, letter.attempt, len(h.runs)) == ("refused", 1, 1)
    assert letter.letter.error_type.endswith("WorkNotDone")
    with pytest.raises(Exception, match=fault):
        await call(function, Placed(order="o-1"))


@pytest.mark.parametrize("value", [None, True, False, 7, "done", {"a": 1}, [1], object()])
async def test_any_other_value_means_nothing(value: object) -> None:
    async with Harness(a_worker(lambda event: value)) as h:
        await h.publish(Placed(order="o-1"))
        await h.settle()

    assert len(h.handled) == 1


def forgetful(handler: Handler) -> Handler:
    async def run(event: Any, ctx: Context) -> None:
        handler(event, ctx)

    return run


def hasty(handler: Handler) -> Handler:
    async def run(event: Any, ctx: Context) -> None:
        ctx.state.append(asyncio.ensure_future(handler(event, ctx)))

    return run


@pytest.mark.parametrize("middleware", [forgetful, hasty])
async def test_middleware_that_does_not_await_the_handler_is_an_error(middleware: Any, ran: list[str]) -> None:
    @asynccontextmanager
    async def tasks() -> AsyncIterator[list[Any]]:
        yield (kept := [])
        await asyncio.gather(*kept, return_exceptions=True)

    worker = Worker("returned", settings=some_settings(), middleware=[middleware], lifespan=tasks)
    worker.handler(Placed, name="charge")(charge)
    async with Harness(worker) as h:
        await h.publish(Placed(order="o-1"))
        await h.settle()

    assert [letter.error for letter in h.dead_letters] == ["middleware called the handler and did not await it"]


async def test_middleware_may_leave_the_handler_out_and_sees_what_it_returns(ran: list[str]) -> None:
    returned: list[Any] = []

    def skipping(handler: Handler) -> Handler:
        async def run(event: Any, ctx: Context) -> None:
            if event.order != "skip":
                returned.append(await handler(event, ctx))

        return run

    @logged
    async def answering(event: Placed) -> str:
        return f"charged {event.order}"

    async with Harness(a_worker(answering, middleware=[skipping])) as h:
        await h.publish(Placed(order="skip"))
        await h.publish(Placed(order="o-1"))
        await h.settle()

    assert returned == ["charged o-1"] and [fact.outcome for fact in h.settled] == ["handled", "handled"]


async def async_middleware(handler: Handler) -> Handler:
    return handler


async def async_listener(fact: object) -> None: ...


async def async_key(event: Placed) -> str:
    return event.order


def test_an_async_function_where_a_plain_one_is_called_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="middleware async_middleware is an async function"):
        Worker("w", middleware=[async_middleware])  # type: ignore[list-item]
    with pytest.raises(ConfigurationError, match="listener async_listener is an async function"):
        Worker("w", listeners=[async_listener])  # type: ignore[list-item]
    with pytest.raises(ConfigurationError, match="listener async_listener is an async function"):
        Worker("w").configure(listeners=[async_listener])  # type: ignore[list-item]
    with pytest.raises(ConfigurationError, match="key= is an async function"):
        Worker("w").handler(Placed, key=async_key)(charge)


async def test_middleware_that_returns_no_function_is_refused_at_the_start() -> None:
    def forgets(handler: Handler) -> None: ...

    with pytest.raises(ConfigurationError, match="middleware forgets: it returned None, not a function"):
        async with Harness(a_worker(charge, middleware=[forgets])):
            pass


def test_a_decorator_that_cannot_be_called_as_its_function_is_refused() -> None:
    @functools.wraps(charge)
    def of_one(event: Placed) -> Any:
        return charge(event, None)  # type: ignore[arg-type]

    with pytest.raises(ConfigurationError, match=r"its decorator cannot be called with \(event, ctx\)"):
        Worker("w").handler(Placed)(of_one)
