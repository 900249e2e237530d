"""What cannot work of an ordered handler is one line, at import."""

from typing import Any

import pytest

from holdfast import ConfigurationError, Context, Event, HoldfastError, Ordered, Settings, Worker
from holdfast.testing import call


class Placed(Event, type="registered.placed", key="order"):
    order: str


class Keyless(Event, type="registered.keyless"):
    order: str


async def asynchronous(event: Any) -> str:
    return ""


def register(*events: Any, **options: Any) -> Worker:
    worker = Worker("shop")

    @worker.handler(*events, **options)
    async def project(event: Any) -> None: ...

    return worker


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"ordered": "yes"}, r"ordered='yes'; give True, or Ordered\(by=\.\.\.\)$"),
        ({"ordered": True, "idempotent": False}, "ordered= needs idempotent=True"),
        ({"ordered": True, "prefetch": 5}, r"leave prefetch= out$"),
        ({"ordered": True, "on_outage": "process"}, r"leave on_outage='process' out$"),
        ({"ordered": Ordered(partitions=6)}, "a power of two from 1 to 64"),
        ({"ordered": Ordered(partitions=128)}, "a power of two from 1 to 64"),
        ({"ordered": Ordered(partitions=True)}, "a power of two from 1 to 64"),
        ({"ordered": Ordered(when_dead="stop")}, "give 'hold' or 'go-on'"),  # type: ignore[arg-type]
        ({"ordered": Ordered(parked=0)}, "from 1 to 50000"),
        ({"ordered": Ordered(parked=50_001)}, "from 1 to 50000"),
        ({"ordered": Ordered(by=5)}, "a field, or a function"),  # type: ignore[arg-type]
        ({"ordered": Ordered(by=asynchronous)}, "is an async function"),
        ({"ordered": Ordered(by="customer")}, r"Placed has no field 'customer' for Ordered\(by=\)$"),
    ],
)
def test_what_cannot_work_is_refused(options: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigurationError, match=line):
        register(Placed, **options)


@pytest.mark.parametrize("event", [Keyless, "registered.by.name"])
def test_an_event_without_a_key_is_refused(event: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"has no key; write class X\(Event, key='its_field'\)"):
        register(event, ordered=True)


def test_an_event_without_a_key_is_ordered_by_a_field_or_a_function() -> None:
    for by in ("order", lambda event: event.order):
        [spec] = register(Keyless, ordered=Ordered(by=by)).handlers

        assert spec.ordered == Ordered(by=by)


def test_an_ordered_queue_has_a_single_active_consumer_and_a_ledger() -> None:
    worker = register(Placed, ordered=True)
    worker.configure(settings=Settings(_env_file=None, broker={"queue_type": "classic"}))  # type: ignore[arg-type,call-arg]

    queues = {queue.name: queue.arguments for queue in worker.topology().queues}

    for name in ("shop.project", "shop.project.ledger"):
        assert queues[name]["x-single-active-consumer"] is True
        assert queues[name]["x-queue-type"] == "quorum"
        assert queues[name]["x-delivery-limit"] == 1_000_000_000
    assert "x-single-active-consumer" not in queues["shop.project.dead"]


async def test_a_handler_that_is_not_ordered_has_no_fence() -> None:
    keys = []

    async def handle(event: Placed, ctx: Context) -> None:
        keys.append(ctx.key)
        ctx.fence  # noqa: B018 (it raises)

    with pytest.raises(HoldfastError, match=r"only an ordered handler has ctx.fence; register it with ordered=True"):
        await call(handle, Placed(order="a"))
    assert keys == ["a"]
