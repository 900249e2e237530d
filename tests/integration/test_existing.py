"""Queues and exchanges of others: consumed and bound to as they are, and never declared."""

from collections.abc import AsyncIterator

import pytest
from aiormq.exceptions import ChannelNotFoundEntity
from breaking import a_channel, delete
from running import a_broker, a_worker, depth, running, take
from waiting import Arrivals, Facts

from holdfast import Event, Existing, Publisher, Reject, Retry, Settings, TopologyMissing, fixed
from holdfast.broker.amqp import apply_topology, compare_topology
from holdfast.events import headers as h


class Charged(Event, type="shop.charged"):
    order: str


@pytest.fixture
async def theirs(settings: Settings) -> AsyncIterator[str]:
    """A classic queue with arguments of its own, as another system declares them."""
    name = f"{settings.broker.exchange}.theirs"
    async with a_channel(settings) as channel:
        await channel.queue_declare(name, durable=True, arguments={"x-max-priority": 5, "x-expires": 600_000})
    yield name
    async with a_channel(settings) as channel:
        await channel.queue_delete(name)


async def put(settings: Settings, *, exchange: str = "", key: str, body: bytes) -> None:
    async with a_channel(settings) as channel:
        await channel.basic_publish(body, exchange=exchange, routing_key=key, mandatory=True)


async def test_a_queue_of_others_is_consumed_retried_and_dead_lettered(settings: Settings, theirs: str) -> None:
    facts, runs = Facts(), Arrivals[str]()
    worker = a_worker(settings, facts)

    @worker.handler(Charged, theirs, queue=Existing(theirs), retry=Retry(attempts=2, backoff=fixed(0.1)))
    async def charge(event: Charged) -> None:
        runs(event.order)
        if event.order == "closed":
            raise Reject("the account is closed")
        if len(runs.all) == 1:
            raise ConnectionError("once")

    async with running(worker):
        await put(settings, key=theirs, body=b'{"order": "o-1"}')
        await facts.settled("handled")
        await put(settings, key=theirs, body=b'{"order": "closed"}')
        await facts.settled("dead_lettered")

    async with a_broker(settings) as broker:
        [letter] = await take(broker, f"{theirs}.dead", 1)
    assert runs.all == ["o-1", "o-1", "closed"]
    assert (letter.headers[h.REASON], letter.body) == ("refused", b'{"order": "closed"}')
    assert await depth(settings, theirs) == 0


async def test_a_queue_of_others_that_is_missing_is_named_and_not_made(settings: Settings) -> None:
    worker = a_worker(settings, Facts())
    worker.handler(Charged, queue=Existing(f"{settings.broker.exchange}.nowhere"))(take_it)
    worker.handler(Charged, name="own")(take_it)

    with pytest.raises(TopologyMissing, match=r"nowhere.*as Existing\('.*nowhere'\) it is left to others to declare"):
        await worker.run()

    own = worker.handlers[1].queue
    async with Publisher(settings) as publisher:
        await publisher.publish(Charged(order="o-1"))
    assert await depth(settings, own) == 1  # declared and bound all the same
    with pytest.raises(ChannelNotFoundEntity):
        await depth(settings, worker.handlers[0].queue)


async def take_it(event: Charged) -> None: ...


async def test_a_handler_listens_to_an_exchange_of_others(settings: Settings) -> None:
    facts, exchange = Facts(), f"{settings.broker.exchange}.legacy"
    async with a_channel(settings) as channel:
        await channel.exchange_declare(exchange, exchange_type="direct", durable=True, auto_delete=False)
    worker = a_worker(settings, facts)
    worker.handler(Charged, exchange=Existing(exchange), arguments={"x-single-active-consumer": True})(take_it)

    async with running(worker):
        await put(settings, exchange=exchange, key="shop.charged", body=b'{"order": "o-1"}')
        [settled] = await facts.settled("handled")
    await delete(settings, exchanges=(exchange,))

    assert settled.queue == worker.handlers[0].queue


async def test_a_comparison_leaves_alone_what_others_declare(settings: Settings, theirs: str) -> None:
    worker = a_worker(settings, Facts())
    worker.handler(Charged, queue=Existing(theirs))(take_it)
    await apply_topology(settings.broker, worker.topology())

    seen = await compare_topology(settings.broker, worker.topology())

    assert seen.differences == ()
