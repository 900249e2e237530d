"""Partitions of an ordered handler: which events go where, who owns how many, and what is lost when an intake is."""

import asyncio
from collections import Counter, defaultdict
from typing import Any

import pytest
from running import a_broker, publish_all, running, settings_for, started
from waiting import Facts, eventually

from holdfast import Context, Event, Ordered, Reject, Retry, RetryLater, Settings, Worker, fixed
from holdfast.broker import ledger_queue, members_queue, owning_queue, partition_queues
from holdfast.broker.memory import MemoryBroker, shared
from holdfast.consumer import Dependencies
from holdfast.consumer.ordering.commands import command
from holdfast.consumer.ordering.partitions import Partitions
from holdfast.events import Message
from holdfast.telemetry import CopyHeld, Detached, Emit, Paused, Settled
from holdfast.testing import Harness

PARTITIONS = 4


class Placed(Event, type="ordering.placed", key="order"):
    order: str
    number: int


class Shop:
    """What workers of one name do: they share a queue, and what is written down here."""

    def __init__(self, unique: str, **ordered: Any) -> None:
        self.settings = settings_for(f"memory://{unique}", "events")
        self.facts = Facts()
        self.handled: dict[str, list[int]] = defaultdict(list)
        self.fences: dict[str, list[int]] = defaultdict(list)
        self.by: dict[str, set[int]] = defaultdict(set)
        self.failing: Counter[tuple[str, int]] = Counter()
        self.refused: set[tuple[str, int]] = set()
        self._ordered = Ordered(**{"partitions": PARTITIONS} | ordered)
        self._workers = 0

    def with_partitions(self, partitions: int) -> "Shop":
        """The shop after a deploy."""
        self._ordered = Ordered(partitions=partitions)
        return self

    def worker(self) -> Worker:
        """Another worker of the shop, as another process would have one."""
        worker, number = Worker("shop", settings=self.settings, listeners=[self.facts.record]), self._workers
        self._workers += 1

        @worker.handler(Placed, ordered=self._ordered, retry=Retry(attempts=2, backoff=fixed(0, jitter=False)))
        async def project(event: Placed, ctx: Context) -> None:
            self.by[event.order].add(number)
            self.fences[event.order].append(ctx.fence)
            if (event.order, event.number) in self.refused:
                raise Reject("never")
            if self.failing[event.order, event.number] > 0:
                self.failing[event.order, event.number] -= 1
                raise RetryLater(3600)
            self.handled[event.order].append(event.number)

        return worker

    async def publish(self, orders: str, numbers: range) -> None:
        await publish_all(self.settings, [Placed(order=order, number=n) for n in numbers for order in orders])

    async def until_handled(self, orders: str, count: int) -> None:
        await eventually(
            lambda: {order: len(set(self.handled[order])) for order in orders}, dict.fromkeys(orders, count)
        )

    def firsts(self) -> dict[str, list[int]]:
        """The numbers of each order, in the order in which they were first handled."""
        return {order: [*dict.fromkeys(numbers)] for order, numbers in self.handled.items()}


def owned(*workers: Worker) -> list[int]:
    """How many partitions each worker owns."""
    return [round(order_of(worker).pipeline.figures.of_order()[2]) for worker in workers]


def order_of(worker: Worker) -> Partitions:
    runtime = worker._runtime
    assert runtime is not None
    [order] = runtime._subscriptions
    assert isinstance(order, Partitions)
    return order


ORDERS = "abcdefgh"


def all_of(count: int) -> dict[str, list[int]]:
    return {order: [*range(count)] for order in ORDERS}


def test_the_topology_has_a_queue_and_a_ledger_for_each_partition(unique: str) -> None:
    topology = Shop(unique).worker().topology()

    arguments = {queue.name: queue.arguments for queue in topology.queues}

    for name in ("shop.project", *partition_queues("shop.project", PARTITIONS)):
        assert arguments[name]["x-single-active-consumer"] is True
        assert arguments[name]["x-overflow"] == "reject-publish"
        assert arguments[ledger_queue(name)]["x-single-active-consumer"] is True
    assert "x-single-active-consumer" not in arguments[members_queue("shop.project", PARTITIONS)]
    bound = {binding.destination for binding in topology.bindings if binding.source == "events"}
    assert bound == {"shop.project"}


@pytest.mark.parametrize("name", ["shop.project", *partition_queues("shop.project", 8)])
def test_each_queue_of_a_handler_is_known_as_its_own(name: str) -> None:
    assert owning_queue(name) == owning_queue(ledger_queue(name)) == "shop.project"


def test_a_queue_whose_name_only_looks_like_that_of_a_partition_is_itself() -> None:
    assert owning_queue("warehouse.part.arrived") == "warehouse.part.arrived"


async def test_events_leave_the_intake_and_their_partition_when_they_are_handled(unique: str) -> None:
    shop = Shop(unique)

    async with running(shop.worker()):
        await shop.publish(ORDERS, range(3))
        await shop.until_handled(ORDERS, 3)
        queues = shared(f"memory://{unique}").queues
        names = ("shop.project", *partition_queues("shop.project", PARTITIONS))
        await eventually(lambda: [len(queues[name].ready) + queues[name].unsettled for name in names], [0] * 5)

    assert shop.handled == all_of(3)


async def test_partitions_are_divided_among_the_workers_that_come_and_go(unique: str) -> None:
    shop = Shop(unique, partitions=8)
    first, second, third = shop.worker(), shop.worker(), shop.worker()

    async with running(first):
        await eventually(lambda: owned(first), [8])
        async with running(second):
            await eventually(lambda: owned(first, second), [4, 4])
            async with running(third):
                await eventually(lambda: sorted(owned(first, second, third)), [2, 3, 3])
            await eventually(lambda: owned(first, second), [4, 4])
        await eventually(lambda: owned(first), [8])


async def test_two_workers_handle_events_at_once_and_each_key_keeps_its_order(unique: str) -> None:
    shop = Shop(unique)
    first, second = shop.worker(), shop.worker()

    async with running(first, second):
        await eventually(lambda: owned(first, second), [2, 2])
        await shop.publish(ORDERS, range(10))
        await shop.until_handled(ORDERS, 10)

    assert shop.handled == all_of(10)
    assert set.union(*shop.by.values()) == {0, 1}


async def test_the_order_is_kept_while_workers_come_and_go(unique: str) -> None:
    shop = Shop(unique)

    async with running(shop.worker()):
        for part in range(3):
            publishing = asyncio.create_task(shop.publish(ORDERS, range(20 * part, 20 * part + 20)))
            joining = shop.worker()
            async with running(joining):
                await eventually(lambda worker=joining: owned(worker), [2])
            await publishing
        await shop.until_handled(ORDERS, 60)

    assert shop.firsts() == all_of(60)
    assert all(fences == sorted(fences) for fences in shop.fences.values())


class Losing(MemoryBroker):
    """Loses its connections when an event is about to reach its partition, and once it has, and before it has left the
    intake."""

    losses = 0

    async def publish(self, message: Message, *, timeout: float | None) -> None:
        is_handed_on = ".part." in message.routing_key and message.type == "ordering.placed"
        if is_handed_on and self.losses % 2:
            self.losses -= 1
            self.lose_connection()
            await asyncio.sleep(0)  # the intake hears of it before it has published
        await super().publish(message, timeout=timeout)
        if is_handed_on and self.losses:
            self.losses -= 1
            self.lose_connection()


async def test_an_intake_that_is_lost_between_publish_and_ack_repeats_nothing(unique: str) -> None:
    shop, brokers = Shop(unique), list[Losing]()
    shop.refused.add(("a", 1))

    async def opened(settings: Settings, emit: Emit) -> MemoryBroker:
        brokers.append(Losing(settings.broker.url.get_secret_value(), emit=emit))
        return brokers[-1]

    async with running(shop.worker(), dependencies=Dependencies(open_broker=opened)):
        brokers[0].losses = 5
        await shop.publish(ORDERS, range(5))
        await shop.until_handled(ORDERS[1:], 5)

    assert shop.handled == all_of(5) | {"a": [0]}
    assert settled(shop, "duplicate")


async def test_an_event_that_its_partition_refuses_is_not_overtaken_by_the_next(unique: str) -> None:
    shop = Shop(unique, partitions=2)

    async with running(shop.worker()):
        queues = [shared(f"memory://{unique}").queues[name] for name in partition_queues("shop.project", 2)]
        for queue in queues:
            queue._max_length, queue._rejects = 0, True
        await shop.publish("a", range(1))
        await eventually(lambda: any(isinstance(fact, CopyHeld) for fact in shop.facts.all))
        for queue in queues:
            queue._max_length, queue._rejects = None, False
        await shop.publish("a", range(1, 3))
        await shop.until_handled("a", 3)

    assert shop.handled == {"a": [0, 1, 2]}


async def test_a_partition_whose_ledger_is_full_holds_up_no_other(unique: str) -> None:
    worker, handled = Worker("shop"), list[str]()

    @worker.handler(Placed, ordered=Ordered(partitions=64, parked=2), retry=Retry(1))
    async def project(event: Placed) -> None:
        if event.order == "a":
            raise Reject("never")
        handled.append(event.order)

    facts = Facts()
    worker.configure(listeners=[facts.record])
    async with Harness(worker) as h:
        for number in range(5):
            for order in "abc":
                await h.publish(Placed(order=order, number=number))
        await h.advance(1)
        paused = [fact for fact in facts.all if isinstance(fact, Paused)]
        assert Counter(handled) == {"b": 5, "c": 5}
        assert len(paused) == 1 and owning_queue(paused[0].queue) == "shop.project" != paused[0].queue


@pytest.mark.parametrize(("had", "wanted"), [(4, 1), (4, 8)])
async def test_another_number_of_partitions_is_refused(unique: str, had: int, wanted: int) -> None:
    shop = Shop(unique, partitions=had)

    def refused() -> bool:
        reasons = [fact.error for fact in shop.facts.all if isinstance(fact, Detached)]
        return any(f"partitions={had}, and this worker asks for {wanted}" in reason for reason in reasons)

    async with a_broker(shop.settings):
        async with running(shop.worker()):  # a partition that nobody owned has no record of how many there are
            await shop.publish(ORDERS, range(1))
            await shop.until_handled(ORDERS, 1)
        async with started(shop.with_partitions(wanted).worker()):  # refused before it was ready, or after
            await shop.publish("a", range(1, 4))
            await eventually(refused)

    assert shop.handled == {order: [0] for order in ORDERS}


async def test_workers_that_may_not_own_a_queue_leave_few_marks_in_its_ledger(unique: str) -> None:
    shop = Shop(unique, partitions=4)

    async with a_broker(shop.settings) as broker:
        async with running(shop.worker()):
            await shop.publish("a", range(1))
            await shop.until_handled("a", 1)
        async with started(shop.with_partitions(1).worker()):
            await shop.facts.until(Detached, count=4)
        left = await broker.count(ledger_queue("shop.project"))

    assert left is not None and left.ready == 3  # the record of the owner, one to be in line, and a mark


async def test_a_handler_that_gets_partitions_keeps_the_order_of_what_waits(unique: str) -> None:
    """Of each key something is left behind: `a` is held by a dead letter, and `b` waits for an hour."""
    shop = Shop(unique, partitions=1)
    shop.refused.add(("a", 1))
    shop.failing["b", 1] = 1

    async with a_broker(shop.settings) as broker:
        async with running(shop.worker()):
            await shop.publish(ORDERS, range(5))
            await eventually(lambda: bool(settled(shop, "dead_lettered") and settled(shop, "postponed")))
            await shop.until_handled(ORDERS[2:], 5)
        async with running(shop.with_partitions(4).worker()):
            await shop.publish(ORDERS, range(5, 10))
            await shop.until_handled(ORDERS[1:], 10)
            held = [*shop.handled["a"]]
            await broker.publish(command("shop.project", "skip", "a", "elsewhere"), timeout=5)
            await eventually(lambda: len(shop.handled["a"]), 9)

    assert held == [0]
    assert shop.handled == all_of(10) | {"a": [0, *range(2, 10)]}
    assert all(fences == sorted(fences) for fences in shop.fences.values())
    assert all(len(set(fences)) == 2 for fences in shop.fences.values())


async def test_a_rolling_deploy_that_adds_partitions_keeps_the_order(unique: str) -> None:
    shop = Shop(unique, partitions=1)
    first, second = shop.worker(), shop.worker()

    async with running(first, second):
        await shop.publish(ORDERS, range(20))
        async with running(shop.with_partitions(4).worker(), shop.worker()):
            await shop.publish(ORDERS, range(20, 40))
            first.stop()
            await shop.publish(ORDERS, range(40, 60))
            second.stop()
            await shop.until_handled(ORDERS, 60)

    assert shop.firsts() == all_of(60)
    assert all(fences == sorted(fences) for fences in shop.fences.values())


def settled(shop: Shop, outcome: str) -> list[Settled]:
    return [fact for fact in shop.facts.all if isinstance(fact, Settled) and fact.outcome == outcome]
