"""What is under way when a channel or a connection closes."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from aiormq import spec
from breaking import delete, through
from builders import a_message
from pamqp.frame import marshal
from proxy import Direction, Proxy, proxy_to
from running import a_broker, a_worker, until_started
from waiting import LIMIT, Facts
from yarl import URL

from holdfast import BrokerUnavailable, NotConnected, Ordered, PublishTimeout, Settings, Unroutable
from holdfast.broker import Queue, Topology, open_broker
from holdfast.broker.amqp.confirms import PublishChannel
from holdfast.broker.amqp.connection import WiredConnection, close_quietly, connect_to_one
from holdfast.broker.amqp.deliveries import Deliveries
from holdfast.broker.codec import pack
from holdfast.telemetry import Attached, Detached, Disconnected


@pytest.fixture
async def proxy(settings: Settings) -> AsyncIterator[Proxy]:
    async with proxy_to(settings.broker.url.get_secret_value()) as between:
        yield between


@pytest.fixture
async def connection(settings: Settings) -> AsyncIterator[WiredConnection]:
    connection = WiredConnection(URL(settings.broker.url.get_secret_value()))
    await connection.connect()
    yield connection
    await close_quietly(connection, 5)


async def test_a_connection_is_not_left_behind_by_whoever_is_cancelled_as_it_opens(settings: Settings) -> None:
    loop, url = asyncio.get_running_loop(), URL(settings.broker.url.get_secret_value())
    readers = list[asyncio.Task[Any]]()

    def begin(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        task = asyncio.Task(coroutine, loop=loop, **options)
        if "__reader" in coroutine.__qualname__:  # RabbitMQ has said that the connection is open
            readers.append(task)
            connecting.cancel()
        return task

    loop.set_task_factory(begin)
    connecting = asyncio.create_task(connect_to_one([url], 10, None))
    await asyncio.wait({connecting})
    await asyncio.wait(readers, timeout=10)

    assert connecting.cancelled()
    assert [reader.done() for reader in readers] == [True]


async def test_acks_on_a_channel_that_the_broker_closes_leave_the_connection(connection: WiredConnection) -> None:
    channel, transport, tag = await connection.open_channel(), connection.wire.transport, 0
    number = channel.below.number
    deliveries = Deliveries(lambda *_: None, transport, number)
    connection.wire.splitter.tap(number, deliveries)

    transport.write(marshal(spec.Basic.Ack(1_000_000), number))  # of nothing: it closes the channel
    while not channel.is_closed:
        tag += 1
        deliveries.ack(tag)
        await asyncio.sleep(0)

    other = await connection.open_channel()
    await other.set_qos(1, timeout=10)


async def test_publishes_on_a_channel_that_the_broker_closes_leave_the_connection(
    connection: WiredConnection,
) -> None:
    channel = await connection.open_channel(confirms=True)
    sending, publishes = PublishChannel(channel, connection.frame_max), []
    message = a_message(exchange="", routing_key="nowhere")

    connection.wire.transport.write(marshal(spec.Basic.Ack(1_000_000), channel.below.number))
    while not channel.is_closed:
        publishes.append(asyncio.ensure_future(sending.send(message, pack(message))))
        await asyncio.sleep(0)
    await asyncio.gather(*publishes, return_exceptions=True)

    other = await connection.open_channel()
    await other.set_qos(1, timeout=10)


async def test_a_broker_that_reads_no_more_does_not_keep_a_process_from_closing(
    settings: Settings, proxy: Proxy
) -> None:
    queues = [f"{settings.broker.exchange}.{number}" for number in range(10)]
    try:
        async with a_broker(settings) as broker:
            await broker.declare(Topology(queues=tuple(Queue(name, {"x-queue-type": "classic"}) for name in queues)))
        through_proxy = await open_broker(through(proxy, settings), lambda _: None)
        for name in queues:
            await through_proxy.publish(a_message(exchange="", routing_key=name), timeout=LIMIT)
        proxy.swallow(Direction.TO_SERVER)
        large = a_message(b"x" * 1_000_000, exchange="", routing_key=queues[0])
        unknown = await asyncio.gather(
            *(through_proxy.publish(large, timeout=1) for _ in range(30)), return_exceptions=True
        )
        closing = asyncio.ensure_future(through_proxy.close())
        done, _ = await asyncio.wait({closing}, timeout=20)
    finally:
        proxy.resume()
        await delete(settings, queues=tuple(queues))

    assert {type(outcome) for outcome in unknown} == {PublishTimeout}
    assert done


async def test_what_closes_in_a_scope_that_is_cancelled_leaves_no_connection(settings: Settings, proxy: Proxy) -> None:
    through_proxy = await open_broker(through(proxy, settings), lambda _: None)
    await through_proxy.declare(Topology())
    await proxy.until_connections(1)

    with anyio.CancelScope() as scope:
        scope.cancel()
        await through_proxy.close()

    await proxy.until_connections(0)


async def test_a_session_that_was_closed_connects_no_more(settings: Settings, proxy: Proxy) -> None:
    through_proxy = await open_broker(through(proxy, settings), lambda _: None)
    await through_proxy.declare(Topology())
    await proxy.until_connections(1)
    message = a_message(exchange="", routing_key="nobody")
    with pytest.raises(Unroutable):
        await through_proxy.publish(message, timeout=LIMIT)
    proxy.swallow(Direction.TO_CLIENT)
    waiting = asyncio.create_task(through_proxy.publish(message, timeout=None))
    await proxy.until_withheld(Direction.TO_CLIENT)

    await through_proxy.close()
    await asyncio.wait({waiting}, timeout=LIMIT)
    proxy.resume()

    assert isinstance(waiting.exception(), PublishTimeout)
    with pytest.raises(NotConnected, match="this program closed its connection"):
        await through_proxy.publish(message, timeout=1)
    with pytest.raises(BrokerUnavailable, match="was closed by this program"):
        await through_proxy.count("nobody")
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("holdfast link")]
    await proxy.until_connections(0)


async def test_who_waits_for_a_connection_as_the_session_closes_has_sent_nothing(
    settings: Settings, proxy: Proxy
) -> None:
    facts = Facts()
    await proxy.refuse()
    through_proxy = await open_broker(through(proxy, settings), facts.record)
    waiting = asyncio.create_task(through_proxy.publish(a_message(exchange="", routing_key="nobody"), timeout=LIMIT))
    await facts.until(Disconnected)

    await through_proxy.close()
    await asyncio.wait({waiting}, timeout=LIMIT / 2)

    assert isinstance(waiting.exception(), NotConnected)


async def test_a_channel_that_closes_slowly_leaves_its_connection(settings: Settings, proxy: Proxy) -> None:
    facts, kept, deleted = Facts(), f"{settings.broker.exchange}.kept", f"{settings.broker.exchange}.deleted"
    queues = tuple(Queue(name, {"x-queue-type": "classic"}) for name in (kept, deleted))
    broker = await open_broker(through(proxy, settings), facts.record)
    try:
        await broker.declare(Topology(queues=queues))
        for name in (kept, deleted):
            await broker.consume(name, prefetch=1, on_delivery=lambda _: None)
        await facts.until(Attached, count=2)
        proxy.slow(delay=1.2)  # there and back: longer than a close is waited for
        await delete(settings, queues=(deleted,))
        await facts.until(Attached, lambda fact: fact.queue == deleted, count=2)
    finally:
        proxy.slow()
        await broker.close()
        await delete(settings, queues=(kept, deleted))

    assert not facts.of(Disconnected)
    assert {fact.queue for fact in facts.of(Detached)} == {deleted}


@pytest.mark.parametrize("ordered", [False, Ordered(by=lambda _: "a")], ids=["unordered", "ordered"])
async def test_a_frozen_broker_costs_a_stopping_worker_one_time_out(
    settings: Settings, proxy: Proxy, ordered: bool | Ordered
) -> None:
    """Each of cancelling, leaving and closing would take 10 s by itself, and no heartbeat ends them here."""
    lasting = settings.model_copy(update={"broker": settings.broker.model_copy(update={"heartbeat": 3600})})
    worker, began, go = a_worker(through(proxy, lasting), Facts()), asyncio.Event(), asyncio.Event()

    @worker.handler("frozen.#", ordered=ordered)
    async def wait(event: dict[str, Any]) -> None:
        began.set()
        await go.wait()

    worker.handler("other")(idle)
    running = asyncio.create_task(worker.run())
    await until_started(worker, running)
    async with a_broker(settings) as broker:
        await broker.publish(
            a_message(b"{}", type="frozen.one", exchange="", routing_key=worker.handlers[0].queue), timeout=LIMIT
        )
    await began.wait()
    proxy.swallow(Direction.TO_SERVER, Direction.TO_CLIENT)
    worker.stop()
    go.set()
    done, _ = await asyncio.wait({running}, timeout=18)
    proxy.resume()
    await running

    assert done


async def idle(event: dict[str, Any]) -> None: ...
