"""The order system of examples/upgrade is upgraded while events flow: old and new workers share a queue."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiormq
import pytest
from commands import Running, environment
from programs import EXAMPLES, program
from running import a_broker, depth
from waiting import Bell

from holdfast import Publisher, Settings
from holdfast.broker import Binding, Broker, Delivery, Exchange, Queue, Topology
from holdfast.events import Message, headers, uuid7

OLD, NEW = program("upgrade/v1/shop"), program("upgrade/v2/shop")
QUEUE = "upgrade.charge"

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
async def charged(settings: Settings) -> AsyncIterator["Charged"]:
    """What was charged, by order: an outside listener's ledger."""
    ledger = Charged()
    exchange, listener = settings.broker.exchange, f"{settings.broker.exchange}.ledger"
    await forget_queues(settings)
    async with a_broker(settings) as broker:
        binding = Binding(exchange, listener, "upgrade.order.charged")
        await broker.declare(Topology((Exchange(exchange),), (Queue(listener),), (binding,)))

        def record(delivery: Delivery) -> None:
            told = json.loads(delivery.message.body)
            ledger.amounts.setdefault(told["order_id"], set()).add(told["charged"])
            ledger.ring()

        await broker.consume(listener, prefetch=0, on_delivery=record)
        yield ledger
    await forget_queues(settings)


class Charged(Bell):
    """Rung when an order was charged."""

    def __init__(self) -> None:
        super().__init__()
        self.amounts: dict[str, set[str]] = {}


async def forget_queues(settings: Settings) -> None:
    connection = await aiormq.connect(settings.broker.url.get_secret_value())
    channel = await connection.channel()
    for queue in (QUEUE, f"{QUEUE}.dead"):
        await channel.queue_delete(queue)
    await connection.close()


@asynccontextmanager
async def a_shop(version: str, settings: Settings, folder: Path) -> AsyncIterator[Running]:
    """A worker process of the old or the new program."""
    env = environment(
        HOLDFAST_BROKER__URL=settings.broker.url.get_secret_value(),
        HOLDFAST_BROKER__EXCHANGE=settings.broker.exchange,
        HOLDFAST_BROKER__MAX_DELAY="3600",
        HOLDFAST_IDEMPOTENCY__URL="memory://",
    )
    (folder / version).mkdir()
    (folder / version / "shop.py").write_text((EXAMPLES / "upgrade" / version / "shop.py").read_text())
    with Running("run", "shop:worker", folder=folder / version, env=env) as worker:
        await asyncio.to_thread(worker.until, lambda log: "consumer.attached" in log)
        yield worker


def publishing(settings: Settings, *, version: int | None = None) -> Publisher:
    """A publisher, told to go on with an older version or not."""
    versions = {"upgrade.order.created": version} if version else {}
    told = settings.publisher.model_copy(update={"versions": versions})
    return Publisher(settings.model_copy(update={"publisher": told}))


class Flow(Bell):
    """Orders, one after the other, until it is told to stop; the kind of event can be changed on the way."""

    def __init__(self, publisher: Publisher, kind: str) -> None:
        super().__init__()
        self.kind, self.sent = kind, 0
        self._publisher, self._numbers, self._stop = publisher, itertools.count(), asyncio.Event()

    async def run(self) -> None:
        while not self._stop.is_set():
            order = f"o-{next(self._numbers)}"
            old, new = {"total": 2.5}, {"amount": "2.50", "currency": "EUR"}
            event = (
                OLD.OrderCreated(order_id=order, **old)
                if self.kind == "old"
                else NEW.OrderCreated(order_id=order, **new)
            )
            await self._publisher.publish(event)
            self.sent += 1
            self.ring()

    async def more(self, count: int) -> None:
        """Wait until so many more were published."""
        goal = self.sent + count
        await self.until_true(lambda: self.sent >= goal, lambda: self.sent)

    def stop(self) -> None:
        self._stop.set()


async def test_nothing_is_lost_or_dead_lettered_while_workers_and_publishers_are_upgraded(
    settings: Settings, charged: Charged, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        old = await stack.enter_async_context(a_shop("v1", settings, tmp_path))
        flow = Flow(await stack.enter_async_context(publishing(settings, version=1)), "old")
        flowing = asyncio.create_task(flow.run())
        await flow.more(30)

        new = await stack.enter_async_context(a_shop("v2", settings, tmp_path))  # both programs take from the queue
        await flow.more(30)
        flow.kind = "new"  # the publisher is upgraded too, and told to go on with version 1
        await flow.more(30)
        assert await asyncio.to_thread(old.stop) == 0
        flow.stop()
        await flowing

        async with publishing(settings) as upgraded:  # nobody needs version 1 any more
            for number in range(30):
                await upgraded.publish(NEW.OrderCreated(order_id=f"n-{number}", amount="9.00", currency="USD"))
        await charged.until_true(lambda: len(charged.amounts) >= flow.sent + 30, lambda: len(charged.amounts))
        assert await asyncio.to_thread(new.stop) == 0  # what was charged is acked

    assert {order: amounts for order, amounts in charged.amounts.items() if order.startswith("o")} == {
        f"o-{number}": {"2.50 EUR"} for number in range(flow.sent)
    }
    assert [charged.amounts[f"n-{number}"] for number in range(30)] == [{"9.00 USD"}] * 30
    assert await depth(settings, QUEUE) == await depth(settings, f"{QUEUE}.dead") == 0


async def test_an_event_that_is_too_new_is_dead_lettered_and_handled_when_replayed(
    settings: Settings, charged: Charged, tmp_path: Path
) -> None:
    async with publishing(settings) as publisher, a_broker(settings) as broker:
        async with a_shop("v1", settings, tmp_path):
            await publisher.publish(NEW.OrderCreated(order_id="early", amount="1.00", currency="USD"))
            letter = await the_dead_letter(broker)
        assert not charged.amounts

        async with a_shop("v2", settings, tmp_path):
            again = Message(letter.body, "", QUEUE, _theirs(letter), uuid7(), type=letter.type)
            await broker.publish(again, timeout=10)
            await charged.until_true(lambda: "early" in charged.amounts)

    assert letter.headers[headers.REASON] == "unsupported-version"
    assert charged.amounts == {"early": {"1.00 USD"}}


async def the_dead_letter(broker: Broker) -> Message:
    letters: asyncio.Queue[Delivery] = asyncio.Queue()
    consumer = await broker.consume(f"{QUEUE}.dead", prefetch=1, on_delivery=letters.put_nowait)
    async with asyncio.timeout(45):
        delivery = await letters.get()
    await consumer.ack(delivery)
    await consumer.stop(close=True)
    return delivery.message


def _theirs(letter: Message) -> dict[str, Any]:
    return {name: value for name, value in letter.headers.items() if not name.startswith(headers.OURS)}
