"""A publish that returned is in a queue; everything else is an error of its own, within its time."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from breaking import delete
from proxy import Direction, proxy_to
from running import a_broker, a_worker, depth, publish_all, running, settings_for, take, until_ready
from waiting import Facts, eventually

from holdfast import (
    BrokerUnavailable,
    Context,
    Event,
    Metadata,
    NotConnected,
    Publisher,
    PublishError,
    PublishRefused,
    PublishTimeout,
    Settings,
    TooLarge,
    TopologyDrift,
    Unroutable,
)
from holdfast.broker import Binding, Exchange, Queue, Topology, resting_queue
from holdfast.broker.amqp.confirms import IN_FLIGHT
from holdfast.events import Envelope, Message, uuid7
from holdfast.events import headers as h
from holdfast.telemetry import Blocked, Published, Unblocked


class Paid(Event, type="paid"):
    order: str = "o-1"
    note: str = ""


class Loud(Event, type="loud"):
    """One whose handler publishes."""


def with_broker(settings: Settings, **changes: Any) -> Settings:
    return settings.model_copy(update={"broker": settings.broker.model_copy(update=changes)})


async def a_queue(settings: Settings, name: str = "q", **arguments: Any) -> str:
    """A quorum queue bound for `paid`."""
    exchange = settings.broker.exchange
    queue = Queue(f"{exchange}.{name}", {"x-queue-type": "quorum", **arguments})
    async with a_broker(settings) as broker:
        await broker.declare(Topology((Exchange(exchange),), (queue,), (Binding(exchange, queue.name, "paid"),)))
    return queue.name


async def test_a_publish_that_returned_is_in_a_queue_and_on_disk(settings: Settings) -> None:
    queue = await a_queue(settings)

    async with Publisher(settings, source="shop") as publisher:
        metadata = await publisher.publish(Paid())
        assert await depth(settings, queue) == 1

    async with a_broker(settings) as broker:
        [message] = await take(broker, queue, 1)
    assert message.headers[h.EVENT_ID] == metadata.event_id
    assert (message.type, message.app_id, message.content_type) == ("paid", "shop", "application/json")
    assert message.correlation_id == metadata.correlation_id
    assert message.message_id != metadata.event_id


async def test_an_event_nobody_listens_to_is_unroutable(settings: Settings) -> None:
    async with Publisher(settings) as publisher:
        with pytest.raises(Unroutable, match="no queue is bound for 'paid'"):
            await publisher.publish(Paid())


async def test_a_full_queue_refuses(settings: Settings) -> None:
    await a_queue(settings, **{"x-max-length": 1, "x-overflow": "reject-publish"})

    async with Publisher(settings) as publisher:
        results = await publisher.publish_many([Paid()] * 20)
        while any(isinstance(result, Metadata) for result in results):
            # A quorum queue takes a few more before it notices that it is full.
            results = await publisher.publish_many([Paid()] * 5)

    assert [type(result) for result in results] == [PublishRefused] * 5


async def test_what_a_handler_publishes_is_tried_again_while_the_broker_refuses_it(settings: Settings) -> None:
    facts, runs = Facts(), 0
    queue = await a_queue(settings, **{"x-max-length": 1, "x-overflow": "reject-publish"})
    worker = a_worker(settings, facts)

    @worker.handler(Loud)
    async def shout(event: Loud, ctx: Context) -> None:
        nonlocal runs
        runs += 1
        for _ in range(5):  # more than the queue takes before it notices that it is full
            await ctx.publish(Paid())

    async with running(worker):
        await publish_all(settings, [Loud()])
        await facts.until(Published, lambda fact: fact.outcome == "refused")
        await a_queue(settings, "roomy")
        await delete(settings, queues=(queue,))
        await facts.settled("handled")

    assert runs == 1


async def test_a_body_or_headers_over_the_limit_are_too_large_and_hurt_no_other_publish(settings: Settings) -> None:
    await a_queue(settings)
    wide = Envelope(Metadata(uuid7(), "paid", datetime.now(UTC)), b"{}", headers={"big": "x" * 130_000})
    near = Envelope(Metadata(uuid7(), "paid", datetime.now(UTC)), b"{}", headers={"big": "x" * 125_000})

    async with Publisher(settings) as publisher:
        results = await publisher.publish_many([Paid(), Paid(note="x" * 2_000_000), wide, near, Paid()])

    assert [type(result) for result in results] == [Metadata, TooLarge, TooLarge, Metadata, Metadata]


@pytest.mark.parametrize("value", [2**63, object(), {1, 2}, [object()]])
async def test_a_header_that_amqp_cannot_carry_is_named_and_hurts_no_other_publish(
    settings: Settings, value: object
) -> None:
    await a_queue(settings)
    odd = Envelope(Metadata(uuid7(), "paid", datetime.now(UTC)), b"{}", headers={"odd": value})

    async with Publisher(settings) as publisher:
        results = await publisher.publish_many([Paid(), odd, Paid()])

    assert [type(result) for result in results] == [Metadata, PublishError, Metadata]
    assert "'odd'" in str(results[1])


async def test_each_result_of_publish_many_belongs_to_its_own_event(settings: Settings) -> None:
    queue = await a_queue(settings)

    class Unheard(Event): ...

    events: list[Event] = [Unheard() if n % 7 == 0 else Paid(order=str(n)) for n in range(1500)]
    async with Publisher(settings) as publisher:
        results = await publisher.publish_many(iter(events))

    assert [isinstance(result, Unroutable) for result in results] == [isinstance(event, Unheard) for event in events]
    async with a_broker(settings) as broker:
        messages = await take(broker, queue, sum(isinstance(event, Paid) for event in events))
    routed = [result.event_id for result in results if isinstance(result, Metadata)]
    assert sorted(message.headers[h.EVENT_ID] for message in messages) == sorted(routed)


async def test_without_a_broker_a_publish_ends_within_its_time_and_was_never_sent(settings: Settings) -> None:
    nowhere = with_broker(
        settings, url=type(settings.broker.url)("amqp://127.0.0.1:1/"), publish_timeout=0.5, connect_timeout=0.2
    )

    async with Publisher(nowhere) as publisher:
        with pytest.raises(NotConnected, match=r"within 0\.5 s"):
            await publisher.publish(Paid())


async def test_a_broker_that_never_confirms_is_a_time_out_with_unknown_outcome(settings: Settings) -> None:
    queue = await a_queue(settings)
    url = settings.broker.url.get_secret_value()
    async with proxy_to(url) as proxy:
        proxied = with_broker(settings, url=type(settings.broker.url)(proxy.url(url)), publish_timeout=0.5)
        async with Publisher(proxied) as publisher:
            await publisher.publish(Paid())
            proxy.swallow(Direction.TO_CLIENT)
            with pytest.raises(PublishTimeout, match="may or may not"):
                await publisher.publish(Paid())
            proxy.resume()
            assert await publisher.publish(Paid())

    assert await depth(settings, queue) >= 2


async def test_a_publish_survives_a_connection_that_is_cut_before_its_confirm(settings: Settings) -> None:
    queue = await a_queue(settings)
    url = settings.broker.url.get_secret_value()
    async with proxy_to(url) as proxy:
        proxied = with_broker(settings, url=type(settings.broker.url)(proxy.url(url)))
        async with Publisher(proxied) as publisher:
            await publisher.publish(Paid())
            proxy.swallow(Direction.TO_CLIENT)
            pending = asyncio.create_task(publisher.publish(Paid()))
            await proxy.until_withheld(Direction.TO_CLIENT)
            proxy.cut()
            proxy.resume()
            metadata = await pending

    async with a_broker(settings) as broker:
        messages = await take(broker, queue, await depth(settings, queue))
    assert metadata.event_id in [message.headers[h.EVENT_ID] for message in messages]


async def test_publishes_behind_those_that_were_cut_off_are_sent_on_the_next_connection(settings: Settings) -> None:
    queue, url = f"{settings.broker.exchange}.q", settings.broker.url.get_secret_value()
    async with (
        proxy_to(url) as proxy,
        a_broker(with_broker(settings, url=type(settings.broker.url)(proxy.url(url)))) as broker,
    ):
        await broker.declare(Topology(queues=(resting_queue(queue),)))
        await broker.publish(Message(b"1", "", queue), timeout=30)
        proxy.swallow(Direction.TO_CLIENT)
        asked = (broker.publish(Message(b"1", "", queue, message_id=f"{n}"), timeout=30) for n in range(3 * IN_FLIGHT))
        publishes = asyncio.gather(*asked)
        await proxy.until_withheld(Direction.TO_CLIENT)
        proxy.cut()
        proxy.resume()

        await publishes

    assert await depth(settings, queue) >= 3 * IN_FLIGHT


async def test_a_refused_login_is_told_at_once(settings: Settings) -> None:
    url = settings.broker.url.get_secret_value().replace("guest:guest@", "guest:wrong@")
    wrong = with_broker(settings, url=type(settings.broker.url)(url))

    with pytest.raises(BrokerUnavailable, match="login refused") as caught:
        async with Publisher(wrong):
            pass
    assert "wrong@" not in str(caught.value)


async def test_a_missing_virtual_host_is_told_at_once(settings: Settings) -> None:
    wrong = with_broker(
        settings, url=type(settings.broker.url)(settings.broker.url.get_secret_value().rstrip("/") + "/nowhere")
    )

    with pytest.raises(BrokerUnavailable, match="virtual host"):
        async with Publisher(wrong):
            pass


async def test_an_exchange_of_another_kind_is_drift_and_named(settings: Settings) -> None:
    async with a_broker(settings) as broker:
        await broker.declare(Topology((Exchange(settings.broker.exchange, "fanout"),)))

    with pytest.raises(TopologyDrift, match=f"exchange '{settings.broker.exchange}' exists with type = 'fanout'"):
        async with Publisher(settings):
            pass


async def test_an_exchange_deleted_while_publishing_is_unroutable_and_then_restored(settings: Settings) -> None:
    await a_queue(settings)
    async with Publisher(settings) as publisher:

        async def fault() -> str:
            with pytest.raises(Unroutable) as caught:
                await publisher.publish(Paid())
            return str(caught.value).partition("'")[0]

        await publisher.publish(Paid())
        await delete_exchange(settings)

        assert await fault() == "exchange "  # does not exist
        await eventually(fault, "no queue is bound for ")


async def delete_exchange(settings: Settings) -> None:
    import aiormq

    connection = await aiormq.connect(settings.broker.url.get_secret_value())
    await (await connection.channel()).exchange_delete(settings.broker.exchange)
    await connection.close()


async def test_a_delayed_event_reaches_every_listener_after_its_delay(settings: Settings) -> None:
    facts, loop = Facts(), asyncio.get_running_loop()
    worker, times = a_worker(settings, facts), {}

    @worker.handler(Paid)
    async def first(event: Paid) -> None:
        times["first"] = loop.time()

    @worker.handler(Paid)
    async def second(event: Paid) -> None:
        times["second"] = loop.time()

    async with running(worker), Publisher(settings) as publisher:
        await publisher.publish(Paid(), delay=0.1)  # declares the ladder
        await facts.settled("handled", count=2)
        started = loop.time()
        await publisher.publish(Paid(), at=datetime.now(UTC) + timedelta(seconds=1.7))
        await facts.settled("handled", count=4)

    assert all(abs(time - started - 1.7) < 0.15 for time in times.values())


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ({"delay": -1}, "delay=-1"),
        ({"delay": 10.0**9}, "MAX_DELAY"),
        ({"delay": float("nan")}, "nan"),
        ({"delay": 1, "at": datetime.now(UTC)}, "not both"),
        ({"at": datetime(2030, 1, 1)}, "time zone"),  # noqa: DTZ001
    ],
)
async def test_a_wrong_delay_is_told_and_nothing_is_sent(
    settings: Settings, arguments: dict[str, Any], fault: str
) -> None:
    queue = await a_queue(settings)

    async with Publisher(settings) as publisher:
        with pytest.raises(PublishError, match=fault):
            await publisher.publish(Paid(), **arguments)

    assert await depth(settings, queue) == 0


async def test_a_blocked_broker_delays_publishes_but_not_acks(
    settings: Settings, rabbitmq_node: Any, unique: str
) -> None:
    own = settings_for(rabbitmq_node.url, unique)
    facts, go = Facts(), asyncio.Event()
    worker = a_worker(own, facts)

    @worker.handler(Paid)
    async def handle(event: Paid) -> None:
        await go.wait()

    async with running(worker):
        await publish_all(own, [Paid()])
        await until_ready(worker)
        rabbitmq_node.ctl("set_vm_memory_high_watermark", "absolute", "1000")
        try:
            async with Publisher(with_broker(own, publish_timeout=1.0)) as publisher:
                with pytest.raises((PublishTimeout, NotConnected)):
                    await publisher.publish(Paid())
            go.set()
            await facts.settled("handled")
            await until_empty(rabbitmq_node, f"{worker.name}.handle", expected=0)
        finally:
            rabbitmq_node.ctl("set_vm_memory_high_watermark", "0.4")


async def test_a_worker_whose_publishing_is_blocked_says_so_and_still_acks(rabbitmq_node: Any, unique: str) -> None:
    """Acks travel on a connection of their own: on a blocked one nobody would read them."""
    own = settings_for(rabbitmq_node.url, unique)
    facts, alarmed, go = Facts(), asyncio.Event(), asyncio.Event()
    worker = a_worker(own, facts)

    @worker.handler(Paid)
    async def quiet(event: Paid) -> None:
        await go.wait()

    @worker.handler(Loud)
    async def loud(event: Loud, ctx: Context) -> None:
        await alarmed.wait()
        await ctx.publish(Paid())

    async def is_blocked() -> bool:
        return "blocked" in await asyncio.to_thread(rabbitmq_node.ctl, "list_connections", "state")

    async with running(worker):
        await publish_all(own, [Paid(), Loud()])
        await asyncio.to_thread(rabbitmq_node.ctl, "set_vm_memory_high_watermark", "absolute", "1000")
        try:
            alarmed.set()
            await eventually(is_blocked, True)
            [blocked] = await facts.until(Blocked)
            go.set()
            await facts.settled("handled")
            await until_empty(rabbitmq_node, f"{worker.name}.quiet", expected=0)
        finally:
            await asyncio.to_thread(rabbitmq_node.ctl, "set_vm_memory_high_watermark", "0.4")
        await facts.settled("handled", count=3)
        [unblocked] = await facts.until(Unblocked)

    assert (blocked.role, unblocked.role) == ("publish", "publish")
    assert blocked.reason == "low on memory" and "guest" not in blocked.url


async def test_a_queue_without_a_leader_holds_up_no_publish_to_another(rabbitmq_node: Any, unique: str) -> None:
    """As the dead letters of one handler, while the quorum queue of another's cannot be written to."""
    own, stuck, well = settings_for(rabbitmq_node.url, unique), f"{unique}.stuck", f"{unique}.well"
    member = f"{{'%2F_{stuck}', node()}}"
    async with a_broker(own) as broker:
        await broker.declare(Topology(queues=(resting_queue(stuck), resting_queue(well))))
        await asyncio.to_thread(rabbitmq_node.ctl, "eval", f"sys:suspend({member}).")
        try:
            waiting = asyncio.create_task(broker.publish(Message(b"1", "", stuck, message_id="1"), timeout=None))
            with pytest.raises(PublishTimeout):
                await broker.publish(Message(b"2", "", stuck, message_id="2"), timeout=0.5)

            await broker.publish(Message(b"3", "", well, message_id="3"), timeout=10)
        finally:
            await asyncio.to_thread(rabbitmq_node.ctl, "eval", f"sys:resume({member}).")
        await waiting

        assert [message.body for message in await take(broker, well, 1)] == [b"3"]
        assert {message.body for message in await take(broker, stuck, 2)} == {b"1", b"2"}


async def test_publishes_that_wait_for_one_queue_leave_others_their_time(rabbitmq_node: Any, unique: str) -> None:
    """However many they are. One behind too many of them is not sent, and its error says so."""
    own, stuck, well = settings_for(rabbitmq_node.url, unique), f"{unique}.stuck", f"{unique}.well"
    member = f"{{'%2F_{stuck}', node()}}"
    async with a_broker(own) as broker:
        await broker.declare(Topology(queues=(resting_queue(stuck), resting_queue(well))))
        await asyncio.to_thread(rabbitmq_node.ctl, "eval", f"sys:suspend({member}).")
        try:
            asked = (broker.publish(Message(b"1", "", stuck, message_id=f"{n}"), timeout=1) for n in range(500))
            errors = [str(error) for error in await asyncio.gather(*asked, return_exceptions=True)]
            with pytest.raises(PublishTimeout, match="not sent"):
                await broker.publish(Message(b"2", "", stuck, message_id="behind"), timeout=0.1)

            await broker.publish(Message(b"3", "", well, message_id="another"), timeout=10)
        finally:
            await asyncio.to_thread(rabbitmq_node.ctl, "eval", f"sys:resume({member}).")
        await broker.publish(Message(b"4", "", stuck, message_id="again"), timeout=10)

        assert [message.body for message in await take(broker, well, 1)] == [b"3"]
        assert sum("may or may not" in error for error in errors) == IN_FLIGHT
        assert await depth(own, stuck) == IN_FLIGHT + 1


async def test_queues_that_are_published_to_once_leave_few_channels_open(rabbitmq_node: Any, unique: str) -> None:
    """As those of the answers to an operator's questions, each of which has a queue of its own."""
    own, names = settings_for(rabbitmq_node.url, unique), [f"{unique}.{number}" for number in range(110)]

    def channels() -> int:
        return len(rabbitmq_node.ctl("list_channels", "pid", "--no-table-headers").split())

    async with a_broker(own) as broker:
        await broker.declare(Topology(queues=tuple(Queue(name, {"x-queue-type": "classic"}) for name in names)))
        before = await asyncio.to_thread(channels)
        for name in names:
            await broker.publish(Message(b"1", "", name), timeout=10)

        async def piled() -> bool:
            return await asyncio.to_thread(channels) > before + 100

        await eventually(piled, False)
    await delete(own, queues=tuple(names))


async def until_empty(node: Any, queue: str, expected: int) -> None:
    def messages() -> str:
        lines = node.ctl("list_queues", "name", "messages", "--quiet", "--no-table-headers").splitlines()
        return next((line.split()[1] for line in lines if line.split()[:1] == [queue]), "gone")

    await eventually(lambda: asyncio.to_thread(messages), str(expected))
