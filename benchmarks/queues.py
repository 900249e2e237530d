"""The exchange and the queues of one run: made, filled, fed at a steady rate, accounted for and deleted."""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import aiormq
from work import Job, an_order

HERE = Path(__file__).parent
OWN_QUEUES = ("taskiq", "dramatiq", "celery")  # they publish for themselves, in their own format
NOW = datetime.now(UTC).isoformat()
PATIENCE = 60
"""Seconds that a broker or a contender is waited for, where nothing else would end the run."""


async def prepare(job: Job, contender: str) -> None:
    """What the run needs, with its messages in it."""
    if contender.startswith("holdfast"):
        await _declare_holdfast(job)
    async with _channel(job) as channel:
        await channel.exchange_declare(job.queue, exchange_type="topic", durable=True)
        for queue, key in ((job.queue, "order"), (f"{job.queue}.ship", "shipped")):
            if not contender.startswith("holdfast") or key == "shipped":  # its own queue Holdfast has declared
                await channel.queue_declare(queue, durable=True, arguments={"x-queue-type": job.queue_type})
                await channel.queue_bind(queue, job.queue, key)
        if job.role == "consume" and not job.rate and contender not in OWN_QUEUES:
            for number in range(job.count):
                await _publish(channel, job, number)
            await _until(channel, job.queue, messages=job.count)


async def feed(job: Job) -> None:
    """Publish at a steady rate once somebody consumes; each message says when it was sent."""
    async with _channel(job) as channel:
        await _until(channel, job.queue, consumers=1)
        due = time.perf_counter()
        for number in range(job.count):
            due += 1 / job.rate
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            await _publish(channel, job, number, sent=time.perf_counter())
        await channel.queue_declare(job.queue, passive=True)  # answered once all before it was written


async def until_empty(job: Job) -> None:
    """Return when all processes consume the queue and nothing waits in it; what is under way ends in a drain."""
    async with _channel(job) as channel:
        await _until(channel, job.queue, messages=0, consumers=job.processes)


async def account(job: Job, contender: str) -> list[str]:
    """Delete what the run made. Returns what was found amiss: each queue must hold what the work left in it."""
    work = f"{job.queue}.{contender}" if contender in OWN_QUEUES else job.queue
    expected = {work: job.count if job.role == "publish" else 0, f"{job.queue}.ship": job.count if job.chain else 0}
    suffixes = ["", ".dead", ".ship", ".taskiq", ".taskiq.dead_letter", ".dramatiq", ".dramatiq.DQ", ".dramatiq.XQ"]
    suffixes += [".celery", *(f".handle{n}{dead}" for n in range(1, job.handlers) for dead in ("", ".dead"))]
    amiss = []
    async with _channel(job) as channel:
        for queue in (job.queue + suffix for suffix in suffixes):
            if (held := await _held(channel, queue)) != expected.get(queue, 0):
                amiss.append(f"{queue} holds {held} messages, not {expected.get(queue, 0)}")
            await channel.queue_delete(queue)
        for exchange in (job.queue, f"{job.queue}.taskiq"):
            await channel.exchange_delete(exchange)
    return amiss


async def _held(channel: aiormq.abc.AbstractChannel, queue: str) -> int:
    """How many messages a queue holds, none if it is not there; what its consumers did not ack has come back to it."""
    try:
        async with asyncio.timeout(PATIENCE):
            other = await channel.connection.channel()  # which a queue that is not there closes
            declared = await other.queue_declare(queue, passive=True)
            while declared.consumer_count:
                await asyncio.sleep(0.02)
                declared = await other.queue_declare(queue, passive=True)
            await other.close()
    except aiormq.exceptions.ChannelNotFoundEntity:
        return 0
    return declared.message_count or 0


async def _until(channel: aiormq.abc.AbstractChannel, queue: str, **wanted: int) -> None:
    """Wait until a queue has these `messages` or `consumers`; without any progress for a time, fail."""
    seen, since = {}, time.monotonic()
    while True:
        declared = await channel.queue_declare(queue, passive=True)
        found = {"messages": declared.message_count, "consumers": declared.consumer_count}
        if wanted.items() <= found.items():
            return
        if found != seen:
            seen, since = found, time.monotonic()
        if time.monotonic() - since > PATIENCE:
            raise SystemExit(f"{queue}: {found} for {PATIENCE} s, not {wanted}")
        await asyncio.sleep(0.05)


async def _publish(channel: aiormq.abc.AbstractChannel, job: Job, number: int, *, sent: float = 0.0) -> None:
    body = json.dumps(an_order(number, size=job.size, sent=sent)).encode()
    properties = aiormq.spec.Basic.Properties(
        delivery_mode=2, content_type="application/json", message_type="order", message_id=f"m-{number}"
    )
    if job.headers:
        properties.headers = {
            "event-id": f"e-{number}",
            "event-version": 1,
            "event-time": NOW,
            "event-key": str(number),
        }
        properties.app_id, properties.correlation_id = "shop", f"e-{number}"
    await channel.basic_publish(body, exchange=job.queue, routing_key="order", properties=properties, wait=False)


async def _declare_holdfast(job: Job) -> None:
    """As its worker would: the messages are to be there before it is."""
    if str(HERE / "contenders") not in sys.path:
        sys.path.append(str(HERE / "contenders"))
    from holdfast_ import a_worker

    from holdfast.broker import open_broker

    worker = a_worker(job, None)
    broker = await open_broker(worker.settings, lambda fact: None)
    await broker.declare(worker.topology())
    await broker.close()


@asynccontextmanager
async def _channel(job: Job) -> AsyncIterator[aiormq.abc.AbstractChannel]:
    connection = await aiormq.connect(job.rabbitmq)
    try:
        yield await connection.channel(publisher_confirms=False)
    finally:
        await connection.close()
