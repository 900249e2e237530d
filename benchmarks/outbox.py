"""The outbox beside what it replaces, on one PostgreSQL and one RabbitMQ, in the same run.

    python benchmarks/outbox.py [--json FILE] [--quick] [--only TEXT]

Measures the relay next to `publish_many` of the same process and a tuned faststream-outbox (where it is installed), a
web transaction with and without an event, a handler `within=` next to FastStream with the same three statements by
hand, and the time from a commit to the confirm of its event. Prints medians of three and their ratios.

PostgreSQL writes each commit to the disk (`fsync`). A web transaction is a checkout: BEGIN, one SELECT, two INSERTs,
one UPDATE and COMMIT, by SQLAlchemy and asyncpg, of 16 clients in one process. Beside it stands one INSERT alone, where
an event's INSERT weighs most. Neither has the rest of a web request: parsing, validation, templates. Each is measured
with nothing else, with an event, and with an INSERT by hand of the same row: what an event costs is one round trip.
"""

import argparse
import asyncio
import json
import os
import random
import secrets
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from holdfast import Context, Event, Publisher, Settings, Worker
from holdfast.broker import REAL, Binding, Exchange, Queue, Topology, open_broker
from holdfast.cli.run import run
from holdfast.events import seal
from holdfast.outbox import Relay, relaying
from holdfast.sql import Database, Outbox, Outgoing, ddl
from holdfast.telemetry import Fact, Published, Settled, Spans
from holdfast.testing import servers

RUNS = 3
CLIENTS = 16
PADDING = "x" * 240  # makes a body of some 320 bytes
Figures = dict[str, list[float]]


TRANSACTIONS: dict[str, list[tuple[str, tuple[str, ...]]]] = {
    "checkout": [
        ("select name from {}.customers where id = :customer", ("customer",)),
        ("insert into {}.orders values (:id, 950)", ("id",)),
        ("insert into {}.lines values (:id, 'sku-1', 1), (:id, 'sku-2', 3)", ("id",)),
        ("update {}.customers set orders = orders + 1 where id = :customer", ("customer",)),
    ],
    "one row": [("insert into {}.orders values (:id, 950)", ("id",))],
}
"""What web transactions execute between BEGIN and COMMIT, and which parameters each statement has."""


class Measured(Event, type="measured", key="order"):
    order: str
    customer: str = "c-4711"
    padding: str = PADDING


class Handled(Event, type="handled", key="order"):
    order: str
    padding: str = PADDING


class Bench:
    """The servers, the tables and the queues of one run, with names of its own."""

    def __init__(self, rabbitmq: str, postgres: str, name: str) -> None:
        self.name = name
        self.postgres = postgres.replace("postgresql:", "postgresql+asyncpg:")
        self.settings = Settings(
            _env_file=None,
            broker={"url": rabbitmq, "exchange": name, "max_delay": 60},
            idempotency={"url": "memory://"},
            sql={"schema": name, "inbox_ttl": 3600},
            log={"level": "CRITICAL"},
            http={"port": 0},
        )
        self.engine: AsyncEngine = create_async_engine(self.postgres, pool_size=CLIENTS + 4)
        self.sessions = async_sessionmaker(self.engine)
        self.database = Database(self.sessions)
        self.listeners: list[Callable[[Fact], None]] = []

    def emit(self, fact: Fact) -> None:
        for listener in self.listeners:
            listener(fact)

    async def execute(self, *statements: str) -> None:
        async with self.engine.begin() as connection:
            for statement in statements:
                await connection.execute(text(statement))

    async def open(self, stack: AsyncExitStack) -> None:
        stack.push_async_callback(self.engine.dispose)
        await self.execute(
            *ddl(self.name),
            f"create table {self.name}.orders (id text primary key, cents integer)",
            f"create table {self.name}.lines (id text, sku text, count integer, primary key (id, sku))",
            f"create table {self.name}.customers (id integer primary key, name text, orders integer)",
            f"insert into {self.name}.customers select n, 'c-' || n, 0 from generate_series(0, 99) n",
        )
        stack.push_async_callback(self.execute, f"drop schema {self.name} cascade")
        self.broker = await open_broker(self.settings, self.emit)
        stack.push_async_callback(self.broker.close)
        queue = Queue(f"{self.name}.bound", {"x-queue-type": "quorum"})
        bindings = tuple(Binding(self.name, queue.name, kind) for kind in ("measured", "handled"))
        await self.broker.declare(Topology((Exchange(self.name),), (queue,), bindings))

    async def fill(self, count: int) -> None:
        """Commit events for a relay to send."""
        now = datetime.now(UTC)
        rows = [Outgoing(seal(Measured(order=f"o-{n}"), source="bench", now=now)) for n in range(count)]
        await self.database.run(self.database.statements(self.name).inserts(rows))
        await self.execute(f"analyze {self.name}.events")

    def relay(self) -> Relay:
        arguments = {"emit": self.emit, "spans": Spans(), "clock": REAL, "luck": random.random}
        return Relay(self.database, self.broker, self.settings, **arguments)


async def timed(count: int, work: Awaitable[object]) -> tuple[float, float]:
    """Return how many a second, and the CPU seconds of this process for a thousand."""
    started, cpu = time.perf_counter(), time.process_time()
    await work
    return count / (time.perf_counter() - started), (time.process_time() - cpu) / count * 1000


async def relay_rate(bench: Bench, count: int, figures: Figures) -> None:
    await bench.fill(count)
    relay = bench.relay()
    await relay.leases.keep()
    rate, cpu = await timed(count, relay.drain())
    await relay.leases.leave()
    figures["relay, events/s"].append(rate)
    figures["relay, CPU s/1000"].append(cpu)


async def publishing_rate(bench: Bench, count: int, figures: Figures) -> None:
    events = [Measured(order=f"o-{number}") for number in range(count)]
    async with Publisher(bench.settings, emit=lambda fact: None) as publisher:
        rate, cpu = await timed(count, publisher.publish_many(events))
    figures["publish_many, events/s"].append(rate)
    figures["publish_many, CPU s/1000"].append(cpu)


async def faststream_outbox_rate(bench: Bench, count: int, figures: Figures) -> None:
    """faststream-outbox as its documentation relays, with 16 workers, 500 rows a fetch and 100 a flush."""
    from faststream.rabbit import ExchangeType, RabbitBroker, RabbitExchange
    from faststream_outbox import OutboxBroker, make_outbox_table
    from sqlalchemy import MetaData

    metadata, done, sent = MetaData(), asyncio.Event(), 0
    table = make_outbox_table(metadata, table_name="faststream_outbox")
    async with bench.engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    outbox = OutboxBroker(bench.engine, outbox_table=table, logger=None)
    rabbit = RabbitBroker(bench.settings.broker.url.get_secret_value(), logger=None)
    exchange = RabbitExchange(bench.name, type=ExchangeType.TOPIC, durable=True)

    @outbox.subscriber(
        "bench", max_workers=16, fetch_batch_size=500, terminal_flush_batch_size=100, min_fetch_interval=0.01
    )
    async def relay(body: dict[str, Any]) -> None:
        nonlocal sent
        await rabbit.publish(body, exchange=exchange, routing_key="measured", persist=True, mandatory=True)
        sent += 1
        if sent == count:
            done.set()

    bodies = [Measured(order=f"o-{number}").model_dump() for number in range(count)]
    async with bench.sessions() as session, session.begin():
        for begin in range(0, count, 1000):
            await outbox.publish_batch(*bodies[begin : begin + 1000], queue="bench", session=session)
    await rabbit.connect()
    try:

        async def run() -> None:
            await outbox.start()
            await done.wait()

        rate, cpu = await timed(count, run())
    finally:
        await outbox.stop()
        await rabbit.stop()
        await bench.execute("drop table faststream_outbox")
    figures["faststream-outbox, events/s"].append(rate)
    figures["faststream-outbox, CPU s/1000"].append(cpu)


async def commit_rate(bench: Bench, count: int, figures: Figures, *, kind: str, extra: str) -> None:
    """Web transactions of 16 clients in one process: a checkout, or one row alone. `extra` is what each has besides:
    nothing, an event, or an INSERT by hand of the same row."""
    outbox, left = Outbox(bench.settings, source="bench"), iter(range(count))
    by_hand = text(
        bench.database.statements(bench.name).insert([Outgoing(seal(Measured(order=""), source="bench"))])[0]
    )
    statements = [(text(sql.format(bench.name)), parameters) for sql, parameters in TRANSACTIONS[kind]]

    async def client() -> None:
        for number in left:
            values = {"id": f"o-{number}", "customer": number % 100}
            async with bench.sessions.begin() as session:
                for statement, names in statements:
                    await session.execute(statement, {name: values[name] for name in names})
                if extra == "an event":
                    outbox.publish(session, Measured(order=f"o-{number}"))
                elif extra == "a row by hand":
                    row = Outgoing(seal(Measured(order=f"o-{number}"), source="bench"))
                    await session.execute(by_hand, bench.database.statements(bench.name).insert([row])[1])

    async def clients() -> None:
        await asyncio.gather(*(client() for _ in range(CLIENTS)))

    rate, cpu = await timed(count, clients())
    figures[f"{kind} with {extra}, commits/s"].append(rate)
    figures[f"{kind} with {extra}, CPU s/1000"].append(cpu)
    await bench.execute(f"truncate {bench.name}.orders, {bench.name}.lines, {bench.name}.events")


async def handler_rate(bench: Bench, count: int, figures: Figures) -> None:
    """A handler `within=`: inbox row, one row, one event. No relay sends meanwhile: the shards seem to be another's."""
    taken = f"update {bench.name}.cursors set token = :token, lease_until = now() + :lease * interval '1 hour'"
    done, handled = asyncio.Event(), 0

    def listen(fact: Fact) -> None:
        nonlocal handled
        handled += isinstance(fact, Settled)
        if handled == count:
            done.set()

    worker = Worker(bench.name, settings=bench.settings, listeners=[listen])

    @worker.handler(Measured, within=bench.database, concurrency=CLIENTS)
    async def handle(event: Measured, ctx: Context, session: AsyncSession) -> None:
        await session.execute(text(f"insert into {bench.name}.orders values (:id, 950)"), {"id": event.order})
        await ctx.publish(Handled(order=event.order))

    await bench.broker.declare(worker.topology())
    await publish_orders(bench, count)
    async with bench.engine.begin() as connection:
        await connection.execute(text(f"{taken} where name like 'shard:%'"), {"token": "bench", "lease": 1})

    async def run() -> None:
        running = asyncio.create_task(worker.run())
        waiting = asyncio.create_task(done.wait())
        await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        worker.stop()
        await running

    rate, _ = await timed(count, run())
    figures["handler within=, events/s"].append(rate)
    async with bench.engine.begin() as connection:
        await connection.execute(text(f"{taken} where name like 'shard:%'"), {"token": None, "lease": 0})
    await bench.execute(f"truncate {bench.name}.orders, {bench.name}.events, {bench.name}.inbox")


async def faststream_rate(bench: Bench, count: int, figures: Figures) -> None:
    """The same three statements by hand, in a FastStream subscriber that acks after the commit."""
    from faststream import AckPolicy
    from faststream.rabbit import Channel, ExchangeType, RabbitBroker, RabbitExchange, RabbitMessage, RabbitQueue
    from faststream.rabbit.schemas.queue import QueueType

    rabbit = RabbitBroker(
        bench.settings.broker.url.get_secret_value(), logger=None, default_channel=Channel(prefetch_count=CLIENTS)
    )
    queue = RabbitQueue(f"{bench.name}.hand", durable=True, queue_type=QueueType.QUORUM, routing_key="measured")
    done, handled, statements = asyncio.Event(), 0, bench.database.statements(bench.name)

    @rabbit.subscriber(
        queue,
        RabbitExchange(bench.name, type=ExchangeType.TOPIC, durable=True),
        ack_policy=AckPolicy.MANUAL,
    )
    async def handle(body: dict[str, Any], message: RabbitMessage) -> None:
        nonlocal handled
        event = Measured(**body)
        async with bench.sessions.begin() as session:
            inbox = f"insert into {bench.name}.inbox values ('hand', :event, '') on conflict do nothing returning 1"
            if (await session.execute(text(inbox), {"event": event.order.encode()})).first() is not None:
                await session.execute(text(f"insert into {bench.name}.orders values (:id, 950)"), {"id": event.order})
                row = seal(Handled(order=event.order), source="bench")
                sql, params = statements.insert([Outgoing(row)])
                await session.execute(text(sql), params)
        await message.ack()
        handled += 1
        if handled == count:
            done.set()

    bound = Queue(queue.name, {"x-queue-type": "quorum"})
    await bench.broker.declare(
        Topology((Exchange(bench.name),), (bound,), (Binding(bench.name, bound.name, "measured"),))
    )
    await publish_orders(bench, count)

    async def run() -> None:
        await rabbit.start()
        await done.wait()
        await rabbit.stop()

    rate, _ = await timed(count, run())
    figures["FastStream by hand, events/s"].append(rate)
    await bench.execute(f"truncate {bench.name}.orders, {bench.name}.events, {bench.name}.inbox")


async def publish_orders(bench: Bench, count: int) -> None:
    async with Publisher(bench.settings, emit=lambda fact: None) as publisher:
        await publisher.publish_many(Measured(order=f"o-{number}") for number in range(count))


async def latency(bench: Bench, count: int, figures: Figures) -> None:
    """The milliseconds from a commit to the confirm of its event, one at a time, by a relay that was idle."""
    confirmed, outbox = asyncio.Event(), Outbox(bench.settings, source="bench")

    def listen(fact: Fact) -> None:
        if isinstance(fact, Published):
            confirmed.set()

    bench.listeners.append(listen)
    relay, seconds = bench.relay(), list[float]()
    running = asyncio.create_task(relaying(relay, bench.settings, bench.emit, REAL))
    try:
        for number in range(count + 10):
            confirmed.clear()
            async with bench.sessions.begin() as session:
                outbox.publish(session, Measured(order=f"o-{number}"))
            committed = time.perf_counter()
            await confirmed.wait()
            seconds.append(time.perf_counter() - committed)
            await asyncio.sleep(0.05 + 0.1 * random.random())  # idle again
    finally:
        relay.stop()
        await running
        bench.listeners.remove(listen)
    ordered = sorted(seconds[10:])  # the first ones come before the relay hears
    figures["commit to confirm, idle, p50 ms"].append(statistics.median(ordered) * 1000)
    figures["commit to confirm, idle, p99 ms"].append(ordered[int(len(ordered) * 0.99)] * 1000)


RATIOS = (
    ("relay, events/s", "publish_many, events/s", "at least 0.7"),
    ("relay, events/s", "faststream-outbox, events/s", "at least 3"),
    ("relay, CPU s/1000", "faststream-outbox, CPU s/1000", "at most 0.3"),
    ("checkout with an event, commits/s", "checkout with nothing, commits/s", "at least 0.95"),
    ("checkout with an event, commits/s", "checkout with a row by hand, commits/s", "at least 0.95"),
    ("one row with an event, commits/s", "one row with nothing, commits/s", "no target"),
    ("handler within=, events/s", "FastStream by hand, events/s", "at least 1.3"),
)


async def measure(rabbitmq: str, postgres: str, *, share: float, only: str) -> dict[str, float]:
    """Run everything three times, interleaved: a busy moment of the machine touches all. Returns the medians."""
    has_faststream = find_spec("faststream") is not None
    has_outbox = find_spec("faststream_outbox") is not None
    steps: list[tuple[str, Callable[..., Awaitable[None]], int, dict[str, Any]]] = [
        ("publish_many", publishing_rate, 20_000, {}),
        ("relay", relay_rate, 20_000, {}),
        *([("faststream-outbox", faststream_outbox_rate, 5_000, {})] if has_outbox else []),
        *(
            (f"web {kind} with {extra}", commit_rate, 4_000, {"kind": kind, "extra": extra})
            for kind in TRANSACTIONS
            for extra in ("nothing", "a row by hand", "an event")
        ),
        *([("faststream", faststream_rate, 4_000, {})] if has_faststream else []),
        ("handler", handler_rate, 4_000, {}),
        ("latency", latency, 100, {}),
    ]
    figures: Figures = {}
    for number in range(RUNS):
        for name, step, count, options in steps:
            if only not in name:
                continue
            print(f"run {number + 1} of {RUNS}: {name}", file=sys.stderr, flush=True)
            bench = Bench(rabbitmq, postgres, f"bench_{secrets.token_hex(4)}")
            async with AsyncExitStack() as stack:
                await bench.open(stack)
                counted = _Figures(figures)
                await step(bench, max(20, int(count * share)), counted, **options)
            await _delete_queues(rabbitmq, bench.name)
    return {name: statistics.median(values) for name, values in figures.items()}


class _Figures(dict[str, list[float]]):
    """The figures of all runs, each under its name."""

    def __init__(self, figures: Figures) -> None:
        super().__init__()
        self._figures = figures

    def __missing__(self, name: str) -> list[float]:
        return self._figures.setdefault(name, [])


async def _delete_queues(rabbitmq: str, name: str) -> None:
    import aio_pika

    async with await aio_pika.connect(rabbitmq) as connection:
        channel = await connection.channel()
        for queue in ("bound", "hand", "handle", "handle.dead"):
            with suppress(Exception):
                await channel.queue_delete(f"{name}.{queue}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", help="file for the figures")
    parser.add_argument("--quick", action="store_true", help="a hundredth of the events: whether it runs, not how fast")
    parser.add_argument("--only", default="", help="what has this in its name")
    options = parser.parse_args()
    with servers.rabbitmq_server() as rabbitmq, servers.postgres_server() as postgres:
        if not isinstance(postgres, servers.Given):
            postgres.ctl("alter system set fsync = on", "select pg_reload_conf()")
        share = 0.01 if options.quick else 1.0
        medians = run(measure(rabbitmq.url, postgres.url, share=share, only=options.only))
    for name, value in medians.items():
        print(f"{name:55} {value:12,.3f}")
    ratios = {
        f"{first} / {second}": medians[first] / medians[second]
        for first, second, _ in RATIOS
        if first in medians and second in medians
    }
    for first, second, wanted in RATIOS:
        if (ratio := ratios.get(f"{first} / {second}")) is not None:
            print(f"{ratio:6.2f} ({wanted}): {first} / {second}")
    if find_spec("faststream_outbox") is None:
        print("faststream-outbox is not installed: it is not measured")
    if options.json:
        written = {"medians": medians, "ratios": ratios, "cores": os.cpu_count()}
        Path(options.json).write_text(json.dumps(written, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
