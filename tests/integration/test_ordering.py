"""Order per key on RabbitMQ, with claims in Redis: retries, dead letters, and every way in which an owner is lost."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from parked import a_ledger, parked
from proxy import Proxy, proxy_to
from running import publish_all, running, settings_for
from waiting import Arrivals, Facts, eventually

from holdfast import Context, Event, Ordered, Retry, Settings, Worker, fixed
from holdfast.broker import ledger_queue, open_broker, partition_queues
from holdfast.consumer.ordering.asking import ask_owner
from holdfast.consumer.ordering.ledger import entry_headers, is_mark
from holdfast.events import Message
from holdfast.telemetry import Paused, Resumed, Settled
from holdfast.testing.servers import Node

pytestmark = pytest.mark.server


class Placed(Event, type="ordering.placed", key="order"):
    order: str
    number: int


class Shop:
    """What workers of one name do: they share a queue, and what is written down here."""

    def __init__(self, settings: Settings, redis_url: str, **ordered: Any) -> None:
        self.settings = settings
        self.redis_url = redis_url
        self.facts = Facts()
        self.failing: dict[tuple[str, int], int] = {}
        self.handled: dict[str, list[int]] = defaultdict(list)
        self.fences: dict[str, list[int]] = defaultdict(list)
        self.ordered = Ordered(**ordered)
        self.going = asyncio.Event()
        self.going.set()
        self.running = 0

    @property
    def queue(self) -> str:
        return f"{self.settings.broker.exchange}.shop.project"

    def worker(self, settings: Settings | None = None) -> Worker:
        """Another worker of the shop: a process of its own would have one."""
        name = f"{self.settings.broker.exchange}.shop"
        worker = Worker(name, settings=settings or self.settings, listeners=[self.facts.record])
        retry = Retry(attempts=3, backoff=fixed(0.1, jitter=False))
        worker.handler(Placed, ordered=self.ordered, retry=retry, name="project")(self.project)
        return worker

    async def project(self, event: Placed, ctx: Context) -> None:
        self.fences[event.order].append(ctx.fence)
        self.running += 1
        try:
            await self.going.wait()
        finally:
            self.running -= 1
        if self.failing.get((event.order, event.number), 0) > 0:
            self.failing[event.order, event.number] -= 1
            raise ValueError("not now")
        self.handled[event.order].append(event.number)

    async def publish(self, orders: str, numbers: range) -> None:
        await publish_all(self.settings, [Placed(order=order, number=number) for number in numbers for order in orders])

    async def until_handled(self, orders: str, count: int) -> None:
        await eventually(lambda: all(len(set(self.handled[order])) == count for order in orders))

    def firsts(self) -> dict[str, list[int]]:
        """The numbers of each order, in the order in which they were first handled."""
        return {order: [*dict.fromkeys(numbers)] for order, numbers in self.handled.items()}


@pytest.fixture(params=[1, 4], ids=lambda partitions: f"{partitions}-partitions")
def partitions(request: pytest.FixtureRequest) -> int:
    """What is promised of one partition is promised of several."""
    number: int = request.param
    return number


@pytest.fixture
def shop(rabbitmq_url: str, redis_url: str, unique: str, partitions: int) -> Shop:
    return Shop(settings_for(rabbitmq_url, unique, redis_url, lease=3), redis_url, partitions=partitions)


@asynccontextmanager
async def proxied(shop: Shop) -> AsyncIterator[tuple[Worker, Proxy]]:
    """A worker whose connections to the broker can be cut."""
    url = shop.settings.broker.url.get_secret_value()
    async with proxy_to(url) as proxy:
        settings = settings_for(proxy.url(url), shop.settings.broker.exchange, shop.redis_url, lease=3)
        yield shop.worker(settings), proxy


def all_of(orders: str, count: int) -> dict[str, list[int]]:
    return {order: [*range(count)] for order in orders}


async def test_events_of_a_key_keep_their_order_through_retries(shop: Shop) -> None:
    shop.failing.update({("a", 2): 2, ("b", 0): 1, ("b", 7): 2})

    async with running(shop.worker()):
        await shop.publish("abc", range(10))
        await shop.until_handled("abc", 10)

    assert dict(shop.handled) == all_of("abc", 10)


async def test_the_ledger_holds_its_record_alone_when_nothing_waits(shop: Shop) -> None:
    shop.failing["a", 0] = 1

    async with running(shop.worker()):
        await shop.publish("ab", range(5))
        await shop.until_handled("ab", 5)
    async with broker_of(shop) as broker:
        queues = {shop.queue, *partition_queues(shop.queue, shop.ordered.partitions)}
        depths = [await broker.count(ledger_queue(queue)) for queue in queues]

    assert [depth and depth.ready for depth in depths] == [1] * len(queues)


async def test_a_second_worker_takes_over_when_the_first_one_stops(shop: Shop) -> None:
    shop.failing["a", 1] = 1
    first, second = shop.worker(), shop.worker()

    async with running(first), running(second):
        await shop.publish("ab", range(5))
        await shop.until_handled("ab", 5)
        first.stop()
        await shop.publish("ab", range(5, 10))
        await shop.until_handled("ab", 10)

    assert dict(shop.handled) == all_of("ab", 10)
    assert shop.fences["b"] == sorted(shop.fences["b"])
    assert shop.ordered.partitions > 1 or len(set(shop.fences["b"])) == 2  # of several, the second may have owned it


async def test_the_order_is_kept_when_connections_are_cut(shop: Shop) -> None:
    shop.failing.update({("a", number): 1 for number in range(0, 60, 7)})

    async with proxied(shop) as (worker, proxy), running(worker):
        for cut in range(6):
            await shop.publish("abc", range(10 * cut, 10 * cut + 10))
            proxy.cut()
        await shop.until_handled("abc", 60)

    assert shop.firsts() == all_of("abc", 60)


async def test_the_order_is_kept_when_the_owner_is_cut_off_and_another_takes_over(shop: Shop) -> None:
    shop.failing.update({("a", number): 1 for number in range(0, 60, 7)})

    async with proxied(shop) as (worker, proxy), running(worker, shop.worker()):
        for cut in range(6):
            await shop.publish("abc", range(10 * cut, 10 * cut + 10))
            proxy.cut()
        await shop.until_handled("abc", 60)

    assert shop.firsts() == all_of("abc", 60)
    assert all(fences == sorted(fences) for fences in shop.fences.values())


async def test_a_handler_that_runs_when_its_owner_is_cut_off_is_waited_for(shop: Shop) -> None:
    shop.failing["a", 0] = 1
    shop.going.clear()

    async with proxied(shop) as (worker, proxy), running(worker):
        await shop.publish("a", range(3))
        await eventually(lambda: shop.running == 1)
        async with running(shop.worker()):
            proxy.cut()
            await eventually(lambda: any(isinstance(fact, Settled) and fact.claim == "busy" for fact in shop.facts.all))
            shop.going.set()
            await shop.until_handled("a", 3)

    assert shop.firsts() == all_of("a", 3)


async def test_the_order_is_kept_when_two_owners_are_lost_that_handled_nothing(shop: Shop) -> None:
    """The second one has in hand all that the first one had: a part of it would return behind the rest."""
    shop.going.clear()

    async with proxied(shop) as (first, to_first), proxied(shop) as (second, to_second), running(first):
        await shop.publish("a", range(20))
        await eventually(lambda: shop.running == 1)
        async with running(second):  # not before: it would own some of several partitions
            to_first.cut()
            await shop.facts.until(Settled, lambda fact: fact.claim == "busy")
            async with running(shop.worker()):
                to_second.cut()
                shop.going.set()
                await shop.until_handled("a", 20)

    assert shop.firsts() == all_of("a", 20)


async def test_a_full_ledger_stops_its_queue_visibly_and_loses_nothing(
    rabbitmq_url: str, redis_url: str, unique: str
) -> None:
    """The next owner stops too. What makes room is an operator who skips the dead letter."""
    shop = Shop(settings_for(rabbitmq_url, unique, redis_url, lease=3), redis_url, parked=5)
    shop.failing["a", 0] = 3

    async with running(shop.worker()):
        await shop.publish("a", range(10))
        await shop.facts.until(Settled, lambda fact: fact.outcome == "dead_lettered")
        await shop.facts.until(Paused, lambda fact: fact.reason == "parked")
        await shop.publish("b", range(3))
    before = len(shop.facts.of(Paused))
    async with running(shop.worker()):
        await eventually(lambda: len(shop.facts.of(Paused)) > before)
        handled = dict(shop.handled)
        answer = await ask_owner(shop.settings, shop.queue, "skip", "a")
        await eventually(lambda: shop.firsts() == {"a": [*range(1, 10)], "b": [0, 1, 2]})

    assert handled == {} and "done" in answer
    assert shop.facts.of(Resumed)


async def test_a_new_owner_takes_over_thousands_of_parked_events(shop: Shop) -> None:
    """Quorum queues take a prefetch of 0 for 2,000: the mark behind so many entries would never come."""
    worker, events = shop.worker(), [Placed(order="abcde"[number % 5], number=number // 5) for number in range(2_500)]
    entries = [parked(shop.queue, event, event.order, number) for number, event in enumerate(events, 1)]
    shop.going.clear()

    async with a_ledger(shop.settings, worker, entries), running(worker):
        listed = await ask_owner(shop.settings, shop.queue, "list")
        shop.going.set()
        await shop.until_handled("abcde", 500)

    assert {one["key"] for one in listed["keys"]} == (set() if shop.ordered.partitions > 1 else {*"abcde"})
    assert shop.firsts() == all_of("abcde", 500)


async def test_a_copy_of_an_earlier_owner_is_dropped(shop: Shop) -> None:
    """As one arrives that was on its way when its owner was lost: its original is still in the queue."""
    async with running(shop.worker()), broker_of(shop) as broker:
        await shop.publish("b", range(1))
        await shop.until_handled("b", 1)
        ledger = ledger_queue(shop.queue)
        headers = {"holdfast-ledger": "parked", "holdfast-order-key": "a", "holdfast-epoch": 0, "holdfast-position": 1}
        await broker.publish(Message(b"", "", ledger, headers, "late"), timeout=5)
        await shop.publish("a", range(3))
        await shop.until_handled("a", 3)

    assert shop.firsts() == {"a": [0, 1, 2], "b": [0]}


@asynccontextmanager
async def broker_of(shop: Shop) -> AsyncIterator[Any]:
    broker = await open_broker(shop.settings, lambda fact: None)
    try:
        yield broker
    finally:
        await broker.close()


async def test_the_order_is_kept_when_the_broker_is_restarted(
    rabbitmq_node: Node, redis_url: str, unique: str, partitions: int
) -> None:
    shop = Shop(settings_for(rabbitmq_node.url, unique, redis_url, lease=3), redis_url, partitions=partitions)
    shop.failing.update({("a", number): 1 for number in range(0, 40, 7)})

    async with running(shop.worker(), shop.worker()):
        await shop.publish("ab", range(20))
        await asyncio.to_thread(rabbitmq_node.stop)
        await asyncio.to_thread(rabbitmq_node.start)
        await shop.publish("ab", range(20, 40))
        await shop.until_handled("ab", 40)

    assert shop.firsts() == all_of("ab", 40)


async def test_the_order_is_kept_when_redis_loses_its_keys(
    rabbitmq_url: str, redis_node: Node, unique: str, partitions: int
) -> None:
    shop = Shop(settings_for(rabbitmq_url, unique, redis_node.url, lease=3), redis_node.url, partitions=partitions)
    shop.failing.update({("a", number): 1 for number in range(0, 40, 7)})

    async with proxied(shop) as (worker, proxy), running(worker, shop.worker()):
        for part in range(4):
            await shop.publish("ab", range(10 * part, 10 * part + 10))
            redis_node.ctl("flushall")
            proxy.cut()
        await shop.until_handled("ab", 40)

    assert shop.firsts() == all_of("ab", 40)


async def test_the_order_is_kept_when_redis_is_unavailable_for_a_while(
    rabbitmq_url: str, redis_node: Node, unique: str, partitions: int
) -> None:
    shop = Shop(settings_for(rabbitmq_url, unique, redis_node.url, lease=3), redis_node.url, partitions=partitions)
    shop.failing.update({("a", number): 1 for number in range(0, 40, 7)})

    async with running(shop.worker(), shop.worker()):
        await shop.publish("ab", range(20))
        await asyncio.to_thread(redis_node.stop)
        await shop.publish("ab", range(20, 40))
        await eventually(lambda: any(isinstance(fact, Paused) for fact in shop.facts.all))
        await asyncio.to_thread(redis_node.start)
        await shop.until_handled("ab", 40)

    assert shop.firsts() == all_of("ab", 40)


async def test_the_order_is_kept_when_a_deploy_under_load_adds_partitions(
    rabbitmq_url: str, redis_url: str, unique: str
) -> None:
    """Of two keys something is left in the old ledger: `a` is held by a dead letter, and `b` waits for a retry."""
    shop = Shop(settings_for(rabbitmq_url, unique, redis_url, lease=3), redis_url, partitions=1)
    shop.failing.update({("a", 1): 3} | {("b", number): 1 for number in range(0, 80, 7)})
    first, second = shop.worker(), shop.worker()

    async with running(first, second):
        await shop.publish("abcd", range(20))
        await shop.facts.until(Settled, lambda fact: fact.outcome == "dead_lettered")
        shop.ordered = Ordered(partitions=4)
        async with running(shop.worker(), shop.worker()):
            publishing = asyncio.create_task(shop.publish("abcd", range(20, 60)))
            first.stop()
            await publishing
            publishing = asyncio.create_task(shop.publish("abcd", range(60, 80)))
            second.stop()
            await publishing
            await shop.until_handled("bcd", 80)
            held = [*shop.handled["a"]]
            answer = await ask_owner(shop.settings, shop.queue, "skip", "a")
            await shop.until_handled("a", 79)

    assert held == [0] and "done" in answer
    assert shop.firsts() == all_of("bcd", 80) | {"a": [0, *range(2, 80)]}
    assert all(fences == sorted(fences) for fences in shop.fences.values())


async def test_a_new_owner_begins_nothing_before_the_old_one_can_remove_nothing_any_more(shop: Shop) -> None:
    """The old owner loses the ledger first. What it parks and removes before it loses the queue is not lost."""
    worker = shop.worker()
    ledger, came = ledger_queue(shop.queue), Arrivals[tuple[Message, int, bool]]()
    async with broker_of(shop) as broker:
        await broker.declare(worker.topology())
        in_ledger, in_queue = [
            await broker.attach(queue, prefetch=200, on_taken=lambda *one: came(one), on_lost=lambda _: None)
            for queue in (ledger, shop.queue)
        ]
        await shop.publish("a", range(2))
        original, tag, _ = await came.next()
        async with running(worker):
            await in_ledger.close()
            await came.until_true(lambda: any(is_mark(message) for message, _, _ in came.all))
            headers = {**original.headers, **entry_headers("parked", key="a", epoch=0, position=1, revision=1)}
            await broker.publish(replace(original, exchange="", routing_key=ledger, headers=headers), timeout=10)
            in_queue.remove(tag)
            await in_queue.close()
            await shop.until_handled("a", 2)

    assert dict(shop.handled) == all_of("a", 2)
