"""What a user registers is checked where it is written, in one line that names the handler."""

import functools
import inspect
import pydoc
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sized
from contextlib import asynccontextmanager
from typing import Any

import pytest
from builders import OrderCreated, a_message, an_incoming, some_settings

from holdfast import (
    ConfigurationError,
    Context,
    Event,
    Existing,
    Retry,
    Settings,
    UnknownType,
    UnsupportedVersion,
    Worker,
)
from holdfast.broker import ladder
from holdfast.consumer.options import HandlerOptions
from holdfast.events import headers
from holdfast.testing import Harness


class OrderCancelled(Event):
    order_id: str


def a_worker() -> Worker:
    return Worker("billing", settings=Settings(_env_file=None, broker={"url": "memory://"}))  # type: ignore[arg-type, call-arg]


def test_a_handlers_queue_is_the_workers_name_and_its_own() -> None:
    worker = a_worker()

    @worker.handler(OrderCreated)
    async def charge(event: OrderCreated, ctx: Context) -> None: ...

    [spec] = worker.handlers
    assert (spec.name, spec.queue, spec.events, spec.is_async, spec.takes_context) == (
        "charge",
        "billing.charge",
        ("order.created",),
        True,
        True,
    )


def test_events_come_from_the_annotation_where_none_are_given() -> None:
    worker = a_worker()

    @worker.handler()
    def charge(event: OrderCreated | OrderCancelled) -> None: ...

    [spec] = worker.handlers
    assert spec.events == ("order.created", "order.cancelled")
    assert not spec.is_async and not spec.takes_context


def test_the_registered_function_stays_what_it_was() -> None:
    worker = a_worker()

    @worker.handler(OrderCreated)
    def charge(event: OrderCreated) -> str:
        return event.order_id

    assert charge(OrderCreated(order_id="o")) == "o"


class Charger:
    async def __call__(self, event: OrderCreated) -> None: ...

    async def method(self, event: OrderCreated, ctx: Context) -> None: ...


@pytest.mark.parametrize(
    ("function", "is_async", "takes_context"),
    [
        (Charger(), True, False),
        (Charger().method, True, True),
        (functools.partial(Charger().method), True, True),
        (lambda event: None, False, False),
    ],
    ids=["callable", "method", "partial", "lambda"],
)
def test_any_callable_will_do(function: Callable[..., Any], is_async: bool, takes_context: bool) -> None:
    worker = a_worker()
    worker.handler(OrderCreated, name="charge")(function)

    [spec] = worker.handlers
    assert (spec.is_async, spec.takes_context) == (is_async, takes_context)


def no_parameters() -> None: ...
def three(event: OrderCreated, ctx: Context, more: int) -> None: ...
def keyword_only(event: OrderCreated, *, more: int) -> None: ...
def unannotated(event, ctx=None):  # type: ignore[no-untyped-def]
    ...


def yielding(event: OrderCreated, ctx: Context) -> Iterator[int]:
    yield 1


async def yielding_too(event: OrderCreated, ctx: Context) -> AsyncIterator[int]:
    yield 1


def of_another(event: OrderCancelled) -> None: ...
def of_bytes(event: bytes) -> None: ...


@pytest.mark.parametrize(
    ("function", "fault"),
    [
        (yielding, "has a `yield`"),
        (yielding_too, "has a `yield`"),
        (Charger.method, "is a method without its object"),
        (of_another, "is for OrderCreated, but its first parameter is annotated OrderCancelled"),
        (of_bytes, "is for OrderCreated, but its first parameter is annotated bytes"),
    ],
)
def test_a_function_that_would_not_do_what_it_looks_like_is_refused(function: Callable[..., Any], fault: str) -> None:
    with pytest.raises(ConfigurationError, match=fault):
        a_worker().handler(OrderCreated)(function)


def test_a_forgotten_event_is_told_of_where_the_function_stands_in_its_place() -> None:
    with pytest.raises(ConfigurationError, match=r"write @worker.handler\(SomeEvent\)"):

        @a_worker().handler  # type: ignore[arg-type]
        async def charge(event: OrderCreated) -> None: ...


def of_its_base(event: Event) -> None: ...
def of_either(event: OrderCreated | OrderCancelled) -> None: ...
def of_it_or_none(event: OrderCreated | None) -> None: ...
def of_anything(event: Any) -> None: ...
def of_a_protocol(event: Sized) -> None: ...


@pytest.mark.parametrize("function", [of_its_base, of_either, of_it_or_none, of_anything, of_a_protocol])
def test_an_annotation_may_be_wider_than_the_event(function: Callable[..., Any]) -> None:
    worker = a_worker()
    worker.handler(OrderCreated)(function)

    [spec] = worker.handlers
    assert spec.kinds == {"order.created": (OrderCreated,)}


@pytest.mark.parametrize("function", [no_parameters, three, keyword_only])
def test_a_function_that_cannot_be_called_with_an_event_is_refused(function: Callable[..., Any]) -> None:
    with pytest.raises(ConfigurationError, match=rf"handler '{function.__name__}' of worker 'billing'.*\(event, ctx\)"):
        a_worker().handler(OrderCreated)(function)


@pytest.mark.parametrize(
    ("events", "arguments", "fault"),
    [
        ((), {}, "takes no event"),
        ((3,), {}, "neither an Event class nor"),
        ((Event,), {}, "neither an Event class nor"),
        (("a b",), {}, "'a b' is not a dotted name"),
        (("order*",), {}, "'order\\*' is not a dotted name such as 'order.created' or pattern such as 'order.\\*'"),
        ((OrderCreated, "order.created"), {}, "'order.created' is given twice"),
        ((OrderCreated, OrderCreated), {}, "'order.created' is given twice"),
        ((OrderCreated,), {"name": "a b"}, "name='a b'"),
        ((OrderCreated,), {"queue": "q" * 200}, "queue="),
        ((OrderCreated,), {"queue": "a*b"}, "queue="),
        ((OrderCreated,), {"arguments": ["x-max-length"]}, r"arguments=\['x-max-length'\]; give a dict"),
        ((OrderCreated,), {"arguments": {1: 2}}, "arguments= may not hold 1"),
        ((OrderCreated,), {"timeout": 0}, "timeout=0"),
        ((OrderCreated,), {"timeout": None}, "timeout=None"),
        ((OrderCreated,), {"timeout": True}, "timeout=True"),
        ((OrderCreated,), {"retry": 3}, r"retry=3; give Retry\(attempts=...\)"),
        ((OrderCreated,), {"concurrency": 0}, "concurrency=0"),
        ((OrderCreated,), {"prefetch": "9"}, "prefetch='9'"),
        ((OrderCreated,), {"on_outage": "wait"}, "on_outage='wait'"),
        (
            (OrderCreated,),
            {"retrys": Retry()},
            r"handler 'unannotated' .* has no option retrys=; did you mean retry=\?",
        ),
    ],
)
def test_each_wrong_argument_is_named(events: Any, arguments: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigurationError, match=fault):
        a_worker().handler(*events, **arguments)(unannotated)


@pytest.mark.parametrize("publishes", [OrderCreated, ("order.created",), (Event,), 3])
def test_what_a_handler_publishes_is_named_by_event_classes(publishes: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"publishes=.*: give a tuple of Event classes"):
        a_worker().handler(OrderCreated, publishes=publishes)(unannotated)


def test_two_handlers_may_share_neither_name_nor_queue() -> None:
    worker = a_worker()
    worker.handler(OrderCreated, name="a", queue="shared")(unannotated)

    with pytest.raises(ConfigurationError, match="two handlers named 'a'"):
        worker.handler(OrderCreated, name="a", queue="other")(unannotated)
    with pytest.raises(ConfigurationError, match="share queue 'shared'"):
        worker.handler(OrderCreated, name="b", queue="shared")(unannotated)


@pytest.mark.parametrize("name", ["", "a b", "x" * 101, "q#", None])
def test_a_workers_name_must_be_able_to_begin_a_queues(name: Any) -> None:
    with pytest.raises(ConfigurationError, match="Worker"):
        Worker(name)


def test_a_message_becomes_what_its_handler_asks_for() -> None:
    worker = a_worker()

    @worker.handler(OrderCreated, "legacy.*")
    async def charge(event: OrderCreated | dict[str, Any]) -> None: ...

    @worker.handler("order.#")
    async def audit(event: bytes) -> None: ...

    typed, raw = worker.handlers
    message = a_message(b'{"order_id": "o"}')
    assert typed.read(an_incoming(message)) == OrderCreated(order_id="o")
    legacy = a_message(b'{"order_id": "o"}', type="legacy.thing")
    assert typed.read(an_incoming(legacy)) == {"order_id": "o"}
    assert raw.read(an_incoming(message)) == message.body


def test_unknown_types_and_newer_versions_are_told_apart() -> None:
    worker = a_worker()
    worker.handler(OrderCreated, name="charge")(unannotated)
    [spec] = worker.handlers
    unknown, newer = a_message(type="x"), a_message(headers={headers.EVENT_VERSION: 3})

    with pytest.raises(UnknownType, match=r"takes order\.created"):
        spec.read(an_incoming(unknown))
    with pytest.raises(UnsupportedVersion, match="version 3 is newer than 2"):
        spec.read(an_incoming(newer))


def test_the_topology_holds_the_queue_dead_letter_queue_and_bindings_of_each_handler() -> None:
    worker = a_worker()
    worker.handler(OrderCreated, "audit.*", name="charge")(unannotated)

    topology = worker.topology()

    queues = {queue.name: queue.arguments for queue in topology.queues}
    assert queues["billing.charge"]["x-dead-letter-routing-key"] == "billing.charge.dead"
    assert queues["billing.charge"]["x-delivery-limit"] == 100
    assert queues["billing.charge.dead"] == {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000_000}
    keys = {binding.key for binding in topology.bindings if binding.destination == "billing.charge"}
    assert {"order.created", "audit.*"} <= keys
    assert {key.removeprefix("*." * 28) for key in keys} >= {"queue.billing.charge", "event.order.created"}


def test_help_shows_each_option_of_a_handler_with_its_default() -> None:
    parameters = inspect.signature(Worker.handler).parameters

    assert list(parameters)[:3] == ["self", "events", "within"]
    assert {name: parameters[name].default for name in HandlerOptions.__annotations__} == {
        "name": None,
        "queue": None,
        "exchange": None,
        "arguments": None,
        "retry": Retry(),
        "timeout": 60.0,
        "concurrency": None,
        "prefetch": None,
        "publishes": None,
        "idempotent": True,
        "key": None,
        "ordered": False,
        "on_outage": None,
    }
    shown = pydoc.plain(pydoc.render_doc(Worker.handler))
    assert "timeout: float = 60.0" in shown and "**options" not in shown


def test_the_docstring_of_handler_names_each_option() -> None:
    named = set(re.findall(r"^ {4}(\w+): \S", inspect.getdoc(Worker.handler) or "", re.MULTILINE))

    assert {"within", *HandlerOptions.__annotations__} <= named


def test_a_queue_of_others_is_looked_for_and_bound_to_the_delay_ladder_alone() -> None:
    worker = Worker("billing", settings=some_settings(broker={"url": "amqp://host/"}))
    worker.handler(OrderCreated, queue=Existing("payroll"))(unannotated)

    topology = worker.topology()

    [theirs, dead] = [queue for queue in reversed(topology.queues) if queue.name.startswith("payroll")]
    assert (theirs.existing, theirs.arguments, dead.name, dead.existing) == (True, {}, "payroll.dead", False)
    assert {b.source for b in topology.bindings if b.destination == "payroll"} == {ladder.OUT}
    assert not any("order.created" in b.key for b in topology.bindings if b.destination == "payroll")


def test_a_handler_has_an_exchange_and_arguments_of_its_own() -> None:
    worker = Worker("billing", settings=some_settings(broker={"url": "amqp://host/"}))
    worker.handler(OrderCreated, exchange="shop", arguments={"x-single-active-consumer": True})(unannotated)
    worker.handler(OrderCancelled, exchange=Existing("legacy"), name="other")(unannotated)

    topology = worker.topology()

    [queue] = [queue for queue in topology.queues if queue.name == "billing.unannotated"]
    assert queue.arguments["x-single-active-consumer"] is True and queue.arguments["x-overflow"] == "reject-publish"
    exchanges = {exchange.name: exchange.existing for exchange in topology.exchanges}
    assert (exchanges["shop"], exchanges["legacy"]) == (False, True)
    bound = {(b.source, b.destination) for b in topology.bindings if b.key in ("order.created", "order.cancelled")}
    assert bound == {("shop", "billing.unannotated"), ("legacy", "billing.other")}


async def test_in_memory_the_queue_of_others_is_made_and_gets_its_events() -> None:
    handled: list[str] = []
    worker = a_worker()

    @worker.handler(OrderCreated, queue=Existing("payroll"))
    async def pay(event: OrderCreated) -> None:
        handled.append(event.order_id)

    @worker.handler(OrderCreated, exchange=Existing("legacy"))
    async def note(event: OrderCreated) -> None:
        handled.append(event.order_id)

    async with Harness(worker) as harness:
        await harness.publish(OrderCreated(order_id="o"))
        await harness.settle()

    assert handled == ["o", "o"]


async def test_a_context_annotated_with_its_state_is_a_context() -> None:
    seen: list[list[str]] = []

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[list[str]]:
        yield seen

    worker = Worker("typed", settings=some_settings(), lifespan=lifespan)

    @worker.handler(OrderCreated)
    async def charge(event: OrderCreated, ctx: "Context[list[str]]") -> None:
        ctx.state.append(event.order_id)

    async with Harness(worker) as harness:
        await harness.publish(OrderCreated(order_id="o"))
        await harness.settle()

    assert seen == ["o"]


def test_a_context_with_its_state_in_front_of_the_event_is_refused() -> None:
    async def swapped(ctx: Context[int], event: OrderCreated) -> None: ...

    with pytest.raises(ConfigurationError, match="the event comes first"):
        Worker("typed").handler(OrderCreated)(swapped)
