"""Order per key, in a harness: what fails holds up its own key alone, and what is behind it keeps its order."""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

import pytest
from parked import a_ledger, parked
from running import publish_all, running, settings_for
from waiting import Facts, eventually

from holdfast import Context, Event, Ordered, Reject, Retry, RetryLater, Settings, Worker, fixed
from holdfast.broker import REAL, Attachment, OnTaken, Timer
from holdfast.broker.memory import MemoryBroker, shared
from holdfast.broker.memory.attachment import MemoryAttachment
from holdfast.consumer import Dependencies
from holdfast.consumer.ordering.commands import command
from holdfast.consumer.ordering.ledger import Kind, entry_headers, item_of, mark, read_entry
from holdfast.consumer.ordering.partitions import Partitions
from holdfast.consumer.ordering.tenure import Tenure
from holdfast.events import Message, read_incoming
from holdfast.idempotency import StoreUnavailable
from holdfast.telemetry import Emit, Paused
from holdfast.testing import Harness
from holdfast.testing.clock import VirtualClock

ONCE_MORE = Retry(attempts=2, backoff=fixed(60, jitter=False))


class Placed(Event, type="ordering.placed", key="order"):
    order: str
    number: int


class Other(Event, type="ordering.other", key="order"):
    order: str


class Shop:
    """A worker with an ordered handler; `failing` are the events that fail, each so many times."""

    def __init__(self, retry: Retry = ONCE_MORE, **ordered: Any) -> None:
        self.worker = Worker("shop")
        self.failing: dict[tuple[str, int], int] = {}
        self.handled: dict[str, list[int]] = defaultdict(list)
        self.attempts: list[tuple[str, int, int]] = []
        self.fences: list[int] = []

        @self.worker.handler(Placed, ordered=Ordered(**ordered), retry=retry)
        async def project(event: Placed, ctx: Context) -> None:
            self.attempts.append((event.order, event.number, ctx.attempt))
            self.fences.append(ctx.fence)
            assert ctx.key == event.order
            if self.failing.get((event.order, event.number), 0) > 0:
                self.failing[event.order, event.number] -= 1
                raise ValueError("not now")
            self.handled[event.order].append(event.number)


MakeShop: TypeAlias = Callable[..., Shop]


@pytest.fixture(params=[1, 4], ids=lambda partitions: f"{partitions}-partitions")
def a_shop(request: pytest.FixtureRequest) -> MakeShop:
    """Makes a shop: what is promised of one partition is promised of several."""
    return partial(Shop, partitions=request.param)


async def publish(h: Harness, orders: str, numbers: range) -> None:
    for number in numbers:
        for order in orders:
            await h.publish(Placed(order=order, number=number))


async def test_events_of_one_key_are_handled_in_their_order(a_shop: MakeShop) -> None:
    shop = a_shop()

    async with Harness(shop.worker) as h:
        await publish(h, "abc", range(10))
        await h.settle()

    assert shop.handled == {order: [*range(10)] for order in "abc"}


async def test_a_failing_event_holds_up_its_own_key_alone(a_shop: MakeShop) -> None:
    shop = a_shop()
    shop.failing["a", 3] = 1

    async with Harness(shop.worker) as h:
        await publish(h, "ab", range(10))
        await h.advance(0)
        before = {order: [*numbers] for order, numbers in shop.handled.items()}
        await h.settle()

    assert before == {"a": [0, 1, 2], "b": [*range(10)]}
    assert shop.handled == {"a": [*range(10)], "b": [*range(10)]}


async def test_waiting_behind_another_event_spends_no_attempt(a_shop: MakeShop) -> None:
    shop = a_shop()
    shop.failing["a", 0] = 1

    async with Harness(shop.worker) as h:
        await publish(h, "a", range(5))
        await h.settle()

    assert [attempt for _, _, attempt in shop.attempts] == [1, 2, 1, 1, 1, 1]


async def test_a_dead_letter_holds_its_key_until_it_is_replayed(a_shop: MakeShop) -> None:
    shop = a_shop()
    shop.failing["a", 1] = 2

    async with Harness(shop.worker) as h:
        await publish(h, "ab", range(4))
        await h.settle()
        held = [*shop.handled["a"]]
        [dead] = h.dead_letters
        await h.replay(dead)
        await h.settle()

    assert held == [0]
    assert shop.handled == {"a": [0, 1, 2, 3], "b": [0, 1, 2, 3]}


async def test_a_dead_letter_lets_its_key_go_on_where_that_is_asked_for(a_shop: MakeShop) -> None:
    shop = a_shop(when_dead="go-on")
    shop.failing["a", 1] = 2

    async with Harness(shop.worker) as h:
        await publish(h, "a", range(4))
        await h.settle()

    assert shop.handled == {"a": [0, 2, 3]}


async def test_the_order_is_kept_when_the_queue_changes_its_owner(a_shop: MakeShop) -> None:
    shop = a_shop()
    shop.failing["a", 1] = 1

    async with Harness(shop.worker) as h:
        await publish(h, "a", range(4))
        await h.advance(1)
        await h.hand_over()
        await publish(h, "a", range(4, 8))
        await h.settle()

    assert shop.handled == {"a": [*range(8)]}


async def test_every_owner_has_a_higher_fence(a_shop: MakeShop) -> None:
    shop = a_shop()

    async with Harness(shop.worker) as h:
        for number in range(3):
            await h.publish(Placed(order="a", number=number))
            await h.settle()
            await h.hand_over()

    assert shop.fences == [1, 2, 3]


async def test_a_key_is_held_still_after_the_owner_has_changed(a_shop: MakeShop) -> None:
    shop = a_shop()
    shop.failing["a", 0] = 2

    async with Harness(shop.worker) as h:
        await publish(h, "a", range(3))
        await h.settle()
        await h.hand_over()
        await publish(h, "a", range(3, 5))
        await h.settle()
        held = [*shop.handled["a"]]
        await h.replay(h.dead_letters[0])
        await h.settle()

    assert held == []
    assert shop.handled == {"a": [*range(5)]}


async def test_the_order_is_kept_through_a_crash_before_the_ack(a_shop: MakeShop) -> None:
    shop = a_shop()
    shop.failing["a", 2] = 1

    async with Harness(shop.worker) as h:
        h.crash_before_ack(2)
        await publish(h, "a", range(6))
        await h.settle()

    assert first_times(shop.handled["a"]) == [*range(6)]


async def test_the_order_is_kept_through_lost_connections(a_shop: MakeShop) -> None:
    shop = a_shop()
    shop.failing["a", 2] = 1

    async with Harness(shop.worker) as h:
        h.lose_connection(3)
        await publish(h, "ab", range(6))
        await h.settle()

    assert first_times(shop.handled["a"]) == [*range(6)]
    assert first_times(shop.handled["b"]) == [*range(6)]


async def test_an_event_that_is_being_parked_when_the_connection_is_lost_is_not_lost() -> None:
    shop = Shop()
    shop.failing["a", 0] = 1

    async with Harness(shop.worker) as h:
        await publish(h, "a", range(1))
        await h.advance(1)
        ledger = h._server.queues["shop.project.ledger"]
        ledger._max_length, ledger._rejects = 0, True
        await h.publish(Placed(order="a", number=1))
        h.lose_connection()
        await h.publish(Placed(order="b", number=0))
        await eventually(lambda: h._replicas[0]._figures["shop.project"].partitions[0].owned, 0)
        ledger._max_length, ledger._rejects = None, False
        await h.settle()

    assert shop.handled == {"a": [0, 1], "b": [0]}


async def test_every_event_twice_is_handled_once_and_in_order(a_shop: MakeShop) -> None:
    shop = a_shop()
    shop.failing["a", 1] = 1

    async with Harness(shop.worker) as h:
        h.duplicate_every_message()
        await publish(h, "a", range(5))
        await h.settle()

    assert shop.handled == {"a": [*range(5)]}


async def test_a_replayed_letter_that_fails_again_keeps_its_position(a_shop: MakeShop) -> None:
    shop = a_shop()
    shop.failing["a", 1] = 3

    async with Harness(shop.worker) as h:
        await publish(h, "a", range(4))
        await h.settle()
        await h.replay(h.dead_letters[0])
        await h.settle()

    assert shop.handled == {"a": [*range(4)]}


async def test_a_replayed_letter_that_dies_again_holds_its_key_again(a_shop: MakeShop) -> None:
    shop = a_shop()
    shop.failing["a", 1] = 4

    async with Harness(shop.worker) as h:
        await publish(h, "a", range(4))
        await h.settle()
        await h.replay(h.dead_letters[0])
        await h.settle()
        held = [*shop.handled["a"]]
        await h.replay(h.dead_letters[0])
        await h.settle()

    assert held == [0]
    assert shop.handled == {"a": [*range(4)]}


async def test_what_waits_for_hours_is_written_anew_and_keeps_its_order() -> None:
    shop = Shop()
    shop.failing["a", 0] = 2

    async with Harness(shop.worker) as h:
        await publish(h, "a", range(4))
        await h.settle()
        before = ledger_of(h)
        await h.advance(3600)
        after = ledger_of(h)
        await h.replay(h.dead_letters[0])
        await h.settle()
        at_rest = ledger_of(h)

    assert len(before) == len(after) == 5 and not before & after
    assert len(at_rest) == 1
    assert shop.handled == {"a": [0, 1, 2, 3]}


class Noting(MemoryBroker):
    """Notes what its owner publishes, and lets it pass when it may."""

    def __init__(self, url: str, emit: Emit) -> None:
        super().__init__(url, emit=emit)
        self.published: list[object] = []
        self.may_pass = asyncio.Event()
        self.may_pass.set()

    @classmethod
    def opening(cls, brokers: "list[Noting]") -> Dependencies:
        """Dependencies with brokers of this kind, which are added to a list."""

        async def opened(settings: Settings, emit: Emit) -> MemoryBroker:
            brokers.append(cls(settings.broker.url.get_secret_value(), emit))
            return brokers[-1]

        return Dependencies(open_broker=opened)

    async def publish(self, message: Message, *, timeout: float | None) -> None:
        if kind := message.headers.get("holdfast-ledger"):
            self.published.append(kind)
            await self.may_pass.wait()
        await super().publish(message, timeout=timeout)


async def test_what_waits_is_written_anew_many_at_once(unique: str) -> None:
    """With one confirm after the other, thousands of entries would take as long as RabbitMQ lets one be in hand."""
    shop, settings, brokers = Shop(Retry(1)), settings_for(f"memory://{unique}", "events"), list[Noting]()
    shop.worker.configure(settings=settings)
    shop.failing["a", 0] = 1

    async with running(shop.worker, dependencies=Noting.opening(brokers)):
        owner = await owner_of(shop.worker)
        await publish_all(settings, [Placed(order="a", number=number) for number in range(6)])
        await eventually(lambda: owner.desk.part.parked, 6)
        brokers[0].published.clear()
        brokers[0].may_pass.clear()
        owner.seat.spawn(owner._rewrite())
        await eventually(lambda: len(brokers[0].published), 6)
        brokers[0].may_pass.set()
        await eventually(lambda: not any(item.is_moving for item in owner.lines["a"].chain))
        await brokers[0].publish(command("shop.project", "skip", "a", "elsewhere"), timeout=5)
        await eventually(lambda: shop.handled["a"], [*range(1, 6)])

    assert brokers[0].published == ["stub", *["parked"] * 5, "command"]


async def owner_of(worker: Worker) -> Tenure:
    """The owner of the queue of a worker's only handler, once it is one."""
    runtime = worker._runtime
    assert runtime is not None
    [order] = runtime._subscriptions
    assert isinstance(order, Partitions)
    [partition] = order.partitions
    await eventually(lambda: partition._ownership is not None and partition._ownership.owner is not None)
    assert partition._ownership is not None and isinstance(partition._ownership.owner, Tenure)
    return partition._ownership.owner


async def test_a_new_owner_publishes_four_marks_however_much_is_parked(unique: str) -> None:
    shop, settings, brokers = Shop(), settings_for(f"memory://{unique}", "events"), list[Noting]()
    shop.worker.configure(settings=settings)

    events = [Placed(order=f"k{number % 30}", number=number) for number in range(3_000)]
    entries = [parked("shop.project", event, event.order, number) for number, event in enumerate(events, 1)]

    async with (
        a_ledger(settings, shop.worker, entries),
        running(shop.worker, dependencies=Noting.opening(brokers)),
    ):
        await eventually(lambda: sum(map(len, shop.handled.values())), 3_000)

    assert brokers[0].published == ["record", "poke", "sentinel", "record"]
    assert shop.handled == {f"k{key}": [*range(key, 3_000, 30)] for key in range(30)}


async def test_a_new_owner_runs_the_events_without_a_key_that_wait_in_its_ledger(unique: str) -> None:
    shop, settings = Shop(), settings_for(f"memory://{unique}", "events")
    shop.worker.configure(settings=settings)
    entries = [parked("shop.project", Placed(order="", number=number), "", number) for number in (1, 2)]

    async with a_ledger(settings, shop.worker, entries), running(shop.worker):
        queues = shared(f"memory://{unique}").queues
        await eventually(lambda: len(queues["shop.project.dead"].ready), 2)
        await eventually(lambda: queues["shop.project.ledger"].unsettled, 1)


class Narrow(Noting):
    """Lends a consumer 4,500 messages: RabbitMQ lends 65,535."""

    async def attach(self, queue: str, *, prefetch: int, **more: Any) -> Attachment:
        return await super().attach(queue, prefetch=prefetch or 4_500, **more)


async def test_a_new_owner_reads_its_ledger_however_many_letters_were_replayed(unique: str) -> None:
    """With all of them in hand, it would never be given the mark behind them."""
    shop, settings, brokers = Shop(), settings_for(f"memory://{unique}", "events"), list[Noting]()
    shop.worker.configure(settings=settings)

    events = [Placed(order=f"k{number}", number=number) for number in range(5_000)]
    entries = [parked("shop.project", event, event.order, 1) for event in events]
    letters = [replace(entry, headers={**entry.headers, "holdfast-ledger": "letter"}) for entry in entries]

    async with (
        a_ledger(settings, shop.worker, letters),
        running(shop.worker, dependencies=Narrow.opening(brokers)),
    ):
        await eventually(lambda: len(shop.handled), 5_000)

    assert shop.handled == {f"k{number}": [number] for number in range(5_000)}


class Late(Noting):
    """Delivers the mark of a new owner only while that writes letters anew."""

    def __init__(self, url: str, emit: Emit) -> None:
        super().__init__(url, emit)
        self._held: list[Callable[[], None]] = []

    async def attach(self, queue: str, *, on_taken: OnTaken, **more: Any) -> Attachment:
        def taken(message: Message, tag: int, redelivered: bool) -> None:
            deliver = partial(on_taken, message, tag, redelivered)
            if message.headers.get("holdfast-ledger") == "sentinel":
                self._held.append(deliver)
            else:
                deliver()

        return await super().attach(queue, on_taken=taken, **more)

    async def publish(self, message: Message, *, timeout: float | None) -> None:
        while self._held and message.headers.get("holdfast-ledger") == "letter":
            self._held.pop()()
        await super().publish(message, timeout=timeout)


async def test_a_new_owner_sees_the_mark_that_comes_while_it_writes_letters_anew(unique: str) -> None:
    shop, settings, brokers = Shop(), settings_for(f"memory://{unique}", "events"), list[Noting]()
    shop.worker.configure(settings=settings)

    entries = [parked("shop.project", Placed(order=f"k{number}", number=0), f"k{number}", 1) for number in range(2_100)]
    letters = [replace(entry, headers={**entry.headers, "holdfast-ledger": "letter"}) for entry in entries]

    async with (
        a_ledger(settings, shop.worker, letters),
        running(shop.worker, dependencies=Late.opening(brokers)),
    ):
        await eventually(lambda: len(shop.handled), 2_100)


MARKS: tuple[Kind, ...] = ("record", "sentinel")


async def test_a_new_owner_reads_its_ledger_however_many_marks_others_left_in_it(unique: str) -> None:
    """As workers do that may not own the queue: with all of them in hand, it would never be given its own mark."""
    shop, settings, brokers = Shop(), settings_for(f"memory://{unique}", "events"), list[Noting]()
    shop.worker.configure(settings=settings)
    records, sentinels = ([mark("shop.project.ledger", kind) for _ in range(2_500)] for kind in MARKS)

    async with (
        a_ledger(settings, shop.worker, [*records, *sentinels]),
        running(shop.worker, dependencies=Narrow.opening(brokers)),
    ):
        await publish_all(settings, [Placed(order="a", number=0)])
        await eventually(lambda: shop.handled["a"], [0])


def ledger_of(h: Harness) -> set[str | None]:
    """The ids of the messages in the ledger, which its owner has in hand."""
    [owner] = h._server.queues["shop.project.ledger"].takers
    assert isinstance(owner, MemoryAttachment)
    return {entry.message.message_id for entry in owner._in_hand.values()}


async def test_a_full_ledger_stops_the_queue_and_loses_nothing() -> None:
    shop = Shop(parked=3)
    shop.failing["a", 0] = 1

    async with Harness(shop.worker) as h:
        await publish(h, "aaaaaaaa", range(1))
        await h.advance(1)
        await publish(h, "b", range(3))
        await h.advance(30)
        before = {order: [*numbers] for order, numbers in shop.handled.items()}
        await h.settle()

    assert before.get("b", []) == []
    assert shop.handled == {"a": [0] * 8, "b": [0, 1, 2]}


async def test_an_event_without_a_key_is_refused() -> None:
    worker = Worker("shop")

    @worker.handler(Placed, ordered=Ordered(by=lambda event: event.order.strip()))
    async def project(event: Placed) -> None: ...

    async with Harness(worker) as h:
        await h.publish(Placed(order=" ", number=0))
        await h.settle()

        assert [dead.reason for dead in h.dead_letters] == ["refused"]


@pytest.mark.parametrize("key", ["k" * 256, "k" * 1_000_000, "\ud800"], ids=["long", "longer", "half-a-pair"])
@pytest.mark.parametrize("partitions", [1, 4])
async def test_an_event_whose_key_fits_no_header_is_refused(partitions: int, key: str) -> None:
    worker, seen = Worker("shop"), list[int]()

    @worker.handler(Placed, ordered=Ordered(by=lambda event: event.order or key, partitions=partitions))
    async def project(event: Placed) -> None:
        seen.append(event.number)

    async with Harness(worker) as h:
        await h.publish(Placed(order="", number=0))
        await h.publish(Placed(order="k" * 255, number=1))
        await h.settle()

        assert [dead.reason for dead in h.dead_letters] == ["refused"]
        assert seen == [1]


async def test_what_an_ordered_handler_publishes_leaves_in_order() -> None:
    worker = Worker("shop")
    seen = []

    class Shown(Event, type="ordering.shown", key="order"):
        order: str
        number: int

    @worker.handler(Placed, ordered=True, retry=ONCE_MORE)
    async def project(event: Placed, ctx: Context) -> None:
        if event.number == 1 and ctx.attempt == 1:
            raise RetryLater(after=5)
        await ctx.publish(Shown(order=event.order, number=event.number))

    @worker.handler(Shown, ordered=True)
    async def show(event: Shown) -> None:
        seen.append(event.number)

    async with Harness(worker) as h:
        await publish(h, "a", range(4))
        await h.settle()

    assert seen == [0, 1, 2, 3]


async def test_a_refused_event_holds_its_key_too() -> None:
    worker = Worker("shop")
    seen = []

    @worker.handler(Placed, ordered=True)
    async def project(event: Placed) -> None:
        if event.number == 0:
            raise Reject("never")
        seen.append(event.number)

    async with Harness(worker) as h:
        await publish(h, "a", range(3))
        await h.settle()

    assert seen == []


@pytest.mark.parametrize(
    "body",
    [
        b'{"verb": "show", "key": [1], "to": "x"}',
        b'{"verb": "show", "key": {}, "to": "x"}',
        b"[" * 100_000,
        b'{"verb": "show", "key": "a", "to": "\\ud800"}',
        b"{}",
        b"7",
    ],
)
async def test_a_command_that_cannot_be_read_is_ignored(body: bytes) -> None:
    shop = Shop()

    async with Harness(shop.worker) as h:
        await h._session.publish(replace(command("shop.project", "show", "a", "x"), body=body), timeout=None)
        await publish(h, "a", range(2))
        await h.settle()

    assert shop.handled == {"a": [0, 1]}
    assert shop.fences == [1, 1]


async def test_an_owner_that_lost_its_queue_leaves_the_mark_of_the_next_owner_in_it(unique: str) -> None:
    shop, settings = Shop(), settings_for(f"memory://{unique}", "events")
    shop.worker.configure(settings=settings)

    async with running(shop.worker):
        owner, queue = await owner_of(shop.worker), shared(f"memory://{unique}").queues["shop.project"]
        attachment = owner.seat.queue
        assert isinstance(attachment, MemoryAttachment)
        queue.put(mark("shop.project", "poke"))
        owner.end_all()
        attachment._hand_over()
        assert queue.unsettled == 1


def test_a_due_time_beyond_all_calendars_is_bounded_by_its_delay() -> None:
    headers = {"holdfast-due": 2**62, "holdfast-delay-ms": 2000} | entry_headers(
        "parked", key="a", epoch=1, position=1, revision=1
    )
    clock = VirtualClock()
    entry = read_entry(Message(b"", headers=headers), 1, redelivered=False)

    item = item_of(entry, None, lambda message: read_incoming(message, clock.now()), clock)

    assert item.due == clock.time() + 2.0


class EarlyClock:
    """Rings each time once a moment too early, as timers of uvloop may: while it rings, the time comes."""

    def __init__(self) -> None:
        self.now, self.precise = REAL.now, REAL.precise
        self._readings: list[float] = []
        self._early: set[float] = set()

    def time(self) -> float:
        return self._readings.pop(0) if self._readings else REAL.time()

    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> Timer:
        def ring() -> None:
            self._readings = [] if when in self._early else [when - 1e-4, when + 1e-4]
            self._early.add(when)
            callback(*args)
            self._readings = []

        return REAL.call_at(when, ring)


async def test_a_retry_whose_timer_rings_a_moment_too_early_is_made_all_the_same(unique: str) -> None:
    shop = Shop(Retry(attempts=2, backoff=fixed(0.1, jitter=False)))
    shop.failing["a", 0] = 1
    settings = settings_for(f"memory://{unique}", "events")
    shop.worker.configure(settings=settings)

    async with running(shop.worker, dependencies=Dependencies(clock=EarlyClock())):
        await publish_all(settings, [Placed(order="a", number=number) for number in range(3)])
        await eventually(lambda: shop.handled["a"], [0, 1, 2], within=10)


async def test_a_connection_that_is_lost_while_claims_are_unavailable_stops_no_key(unique: str) -> None:
    """The owner leaves its queue for the claim store, and waits for the handler: its retry can be parked no more."""
    shop, facts, brokers = Shop(), Facts(), list[MemoryBroker]()
    begun, may_end = asyncio.Event(), asyncio.Event()
    settings = settings_for(f"memory://{unique}", "events")
    shop.worker.configure(settings=settings, listeners=[facts.record])

    @shop.worker.handler(Other, ordered=True, retry=Retry(attempts=2, backoff=fixed(0, jitter=False)))
    async def fail_once(event: Other, ctx: Context) -> None:
        begun.set()
        await may_end.wait()
        if ctx.attempt == 1:
            raise ValueError("not now")
        shop.handled[event.order].append(0)

    async def opened(settings: Settings, emit: Emit) -> MemoryBroker:
        broker = MemoryBroker(settings.broker.url.get_secret_value(), emit=emit)
        brokers.append(broker)
        return broker

    async with running(shop.worker, dependencies=Dependencies(open_broker=opened)):
        await publish_all(settings, [Other(order="a")])
        await begun.wait()
        runtime = shop.worker._runtime
        assert runtime is not None
        runtime._claims.mark_unavailable(StoreUnavailable("out of order"))
        await eventually(lambda: any(isinstance(fact, Paused) for fact in facts.all))
        brokers[0].lose_connection()
        may_end.set()
        await eventually(lambda: shop.handled["a"], [0])


async def test_an_abandoned_handler_keeps_its_queue_from_no_owner(unique: str) -> None:
    """The owner leaves its queue for the claim store, and waits for a handler that never ends."""
    shop, facts = Shop(), Facts()
    begun, may_end = asyncio.Event(), asyncio.Event()
    shop.worker.configure(settings=settings_for(f"memory://{unique}", "events"), listeners=[facts.record])

    @shop.worker.handler(Other, ordered=True, timeout=0.5, retry=Retry(attempts=1))
    async def stubborn(event: Other) -> None:
        begun.set()
        while event.order == "a" and not may_end.is_set():
            with suppress(asyncio.CancelledError):
                await may_end.wait()
        shop.handled[event.order].append(0)

    async with running(shop.worker, dependencies=Dependencies(cancel_grace=0.1)):
        runtime = shop.worker._runtime
        assert runtime is not None
        await publish_all(runtime._settings, [Other(order="a")])
        await begun.wait()
        runtime._claims.mark_unavailable(StoreUnavailable("out of order"))
        await facts.until(Paused)
        try:
            await publish_all(runtime._settings, [Other(order="b")])
            await eventually(lambda: shop.handled["b"], [0])
        finally:
            may_end.set()


def first_times(numbers: list[int]) -> list[int]:
    return [*dict.fromkeys(numbers)]


@pytest.mark.parametrize("seed", range(5))
async def test_the_order_is_kept_whatever_fails(a_shop: MakeShop, seed: int) -> None:
    shop = a_shop(Retry(attempts=9, backoff=fixed(20, jitter=True)))
    for order in "abc":
        for number in range(seed, 30, 5):
            shop.failing[order, number] = 1 + (number + seed) % 3

    async with Harness(shop.worker, seed=seed) as h:
        await publish(h, "abc", range(15))
        h.crash_before_ack(2)
        h.lose_connection(2)
        await h.advance(10)
        await h.hand_over()
        await publish(h, "abc", range(15, 30))
        await h.settle()

    assert {order: first_times(shop.handled[order]) for order in "abc"} == {key: [*range(30)] for key in "abc"}
