"""`BlockingPublisher`: confirmed publishing for programs without an event loop."""

import asyncio
import os
import sys
import threading
from asyncio.subprocess import PIPE
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from apps import APPS
from breaking import through, with_broker
from proxy import Direction, proxy_to
from running import a_broker, depth, take
from waiting import LIMIT

from holdfast import BlockingPublisher, Event, Metadata, PublishError, Settings, TopologyDrift, Unroutable
from holdfast.broker import Binding, Exchange, Queue, Topology
from holdfast.publisher.publisher import PIPELINE
from holdfast.telemetry import Fact, Published


class Paid(Event, type="paid"):
    order: str = "o-1"


@pytest.fixture
async def queue(settings: Settings) -> str:
    """A queue bound for `paid`."""
    exchange = settings.broker.exchange
    async with a_broker(settings) as broker:
        queue = Queue(f"{exchange}.q", {"x-queue-type": "quorum"})
        await broker.declare(Topology((Exchange(exchange),), (queue,), (Binding(exchange, queue.name, "paid"),)))
    return queue.name


def holdfast_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "holdfast publisher"]


async def test_a_publish_that_returned_is_in_a_queue(settings: Settings, queue: str) -> None:
    def script() -> Metadata:
        with BlockingPublisher(settings, source="script") as publisher:
            return publisher.publish(Paid(), event_id="mine", headers={"tenant": "blue"})

    metadata = await asyncio.to_thread(script)

    async with a_broker(settings) as broker:
        [message] = await take(broker, queue, 1)
    assert metadata.event_id == message.headers["event-id"] == "mine"
    assert (message.headers["tenant"], message.app_id) == ("blue", "script")
    assert holdfast_threads() == []


async def test_many_threads_publish_through_one_publisher(settings: Settings, queue: str) -> None:
    def script() -> list[Metadata]:
        with BlockingPublisher(settings) as publisher, ThreadPoolExecutor(8) as threads:
            return list(threads.map(lambda number: publisher.publish(Paid(order=str(number))), range(200)))

    sent = await asyncio.to_thread(script)

    assert len({metadata.event_id for metadata in sent}) == await depth(settings, queue) == 200


async def test_many_events_are_read_in_the_thread_that_publishes_them(settings: Settings, queue: str) -> None:
    def script() -> tuple[list[Metadata | PublishError], set[int]]:
        readers = set[int]()

        def events(count: int) -> Iterator[Paid]:
            for number in range(count):
                readers.add(threading.get_ident())
                yield Paid(order=str(number))

        with BlockingPublisher(settings) as publisher:
            return publisher.publish_many(events(1_200)), readers - {threading.get_ident()}

    results, others = await asyncio.to_thread(script)

    assert [type(result) for result in results] == [Metadata] * 1_200
    assert (await depth(settings, queue), others) == (1_200, set())


async def test_of_many_events_those_before_a_close_are_known(settings: Settings, queue: str) -> None:
    def script() -> list[Metadata | PublishError]:
        publisher = BlockingPublisher(settings)

        def events() -> Iterator[Paid]:
            for number in range(PIPELINE + 10):
                if number == PIPELINE + 5:
                    publisher.close()
                yield Paid(order=str(number))

        return publisher.publish_many(events())

    results = await asyncio.to_thread(script)

    assert [type(result) for result in results] == [Metadata] * PIPELINE + [PublishError] * 10
    assert await depth(settings, queue) == PIPELINE


async def test_the_errors_are_those_of_a_publisher(settings: Settings) -> None:
    def script() -> None:
        with BlockingPublisher(settings) as publisher:
            with pytest.raises(Unroutable, match="no queue is bound for 'paid'"):
                publisher.publish(Paid())
            with pytest.raises(PublishError, match="delay"):
                publisher.publish(Paid(), delay=-1)

    await asyncio.to_thread(script)


async def test_a_publish_survives_a_lost_connection(settings: Settings, queue: str) -> None:
    async with proxy_to(settings.broker.url.get_secret_value()) as proxy:
        publisher = BlockingPublisher(through(proxy, settings))
        await asyncio.to_thread(publisher.publish, Paid())
        proxy.swallow(Direction.TO_CLIENT)
        publishing = asyncio.create_task(asyncio.to_thread(publisher.publish, Paid(order="o-2")))
        await proxy.until_withheld(Direction.TO_CLIENT)
        proxy.cut()
        proxy.resume()
        await publishing
        await asyncio.to_thread(publisher.close)

    assert await depth(settings, queue) >= 2


async def test_closing_waits_for_the_publishes_of_other_threads(settings: Settings, queue: str) -> None:
    async with proxy_to(settings.broker.url.get_secret_value()) as proxy:
        publisher = BlockingPublisher(through(proxy, settings))
        await asyncio.to_thread(publisher.publish, Paid())
        proxy.swallow(Direction.TO_CLIENT)
        publishing = asyncio.create_task(asyncio.to_thread(publisher.publish, Paid()))
        await proxy.until_withheld(Direction.TO_CLIENT)
        closing = asyncio.create_task(asyncio.to_thread(publisher.close))
        proxy.resume()
        await closing

        assert isinstance(await publishing, Metadata)

    with pytest.raises(PublishError, match="this publisher is closed"):
        publisher.publish(Paid())
    publisher.close()


def test_a_publisher_that_cannot_be_opened_leaves_no_thread(settings: Settings) -> None:
    wrong = with_broker(settings, exchange="amq.fanout")

    with pytest.raises(TopologyDrift, match=r"amq\.fanout"):
        BlockingPublisher(wrong).publish(Paid())

    assert holdfast_threads() == []


def test_a_publisher_whose_thread_cannot_start_can_be_used_later(settings: Settings, queue: str) -> None:
    publisher = BlockingPublisher(settings)

    usual = threading.stack_size(1 << 60)  # more than an address space has
    try:
        with pytest.raises(PublishError, match="thread cannot be started: can't start new thread"):
            publisher.publish(Paid())
    finally:
        threading.stack_size(usual)

    assert isinstance(publisher.publish(Paid()), Metadata)
    publisher.close()


async def test_a_fork_is_refused_and_the_program_goes_on_and_ends(settings: Settings, queue: str) -> None:
    environment = {
        **os.environ,
        "HOLDFAST_BROKER__URL": settings.broker.url.get_secret_value(),
        "HOLDFAST_BROKER__EXCHANGE": settings.broker.exchange,
    }

    program = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "ignore", APPS / "script.py", env=environment, stdout=PIPE, stderr=PIPE
    )
    said, log = await asyncio.wait_for(program.communicate(), LIMIT)

    assert program.returncode == 0, log.decode()
    refused = (
        "child: PublishError: this publisher was opened by process P, of which process C is a fork; create or first "
        "use a BlockingPublisher after the fork"
    )
    assert said.decode().splitlines() == [
        "parent published",
        refused,
        "child published with its own",
        "parent published again",
    ]
    assert await depth(settings, queue) == 3


@pytest.mark.parametrize("call", ["publish", "close"])
def test_a_listener_of_its_own_facts_can_neither_publish_nor_close(settings: Settings, queue: str, call: str) -> None:
    errors: list[str] = []

    def call_again(fact: Fact) -> None:
        if isinstance(fact, Published):
            try:
                publisher.publish(Paid()) if call == "publish" else publisher.close()
            except PublishError as error:
                errors.append(str(error))

    with BlockingPublisher(settings, emit=call_again) as publisher:
        publisher.publish(Paid())

    assert errors == [
        "a listener of this publisher's facts can neither publish through it nor close it: it would wait for itself"
    ]


def test_a_listener_that_exits_does_so_in_the_thread_that_publishes(settings: Settings, queue: str) -> None:
    def leave(fact: Fact) -> None:
        if isinstance(fact, Published):
            sys.exit(3)

    with BlockingPublisher(settings, emit=leave) as publisher:
        with pytest.raises(SystemExit, match="3"):
            publisher.publish(Paid())
        with pytest.raises(SystemExit, match="3"):
            publisher.publish(Paid())


async def test_an_interrupt_while_it_connects_leaves_no_task_behind() -> None:
    program = await asyncio.create_subprocess_exec(sys.executable, APPS / "interrupted.py", stdout=PIPE, stderr=PIPE)
    said, log = await asyncio.wait_for(program.communicate(), LIMIT)

    assert (said.decode().splitlines(), log.decode()) == (["interrupted"], "")
