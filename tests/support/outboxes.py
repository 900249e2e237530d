"""Writers that commit events of a few keys, relays in processes of their own, a reader, and the account of it all."""

import asyncio
import json
import random
import signal
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
from commands import Running, environment
from running import a_broker
from scraping import Site
from waiting import LIMIT, Arrivals, eventually

from holdfast import Event, Settings
from holdfast.broker import Binding, Delivery, Exchange, Queue, Topology
from holdfast.events import headers
from holdfast.sql import Outbox, ddl

KEYS = 6
LOST = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What a writer is told whose database ends."""


class Counted(Event, type="counted", key="account"):
    """The number that its transaction gave to an account: per account, the order of the numbers is that of commits."""

    account: str
    number: int


class RolledBack(Exception):
    """A transaction of a writer that is to end without a commit."""


@dataclass
class Outboxes:
    """One database, its writers and its relays, and what reached the queue: number and event id, of each account."""

    url: str
    settings: Settings
    folder: Path
    luck: random.Random = field(default_factory=lambda: random.Random(7))
    arrived: Arrivals[tuple[str, int, str]] = field(default_factory=Arrivals)
    relays: list[Running] = field(default_factory=list)
    committed: int = 0
    _writes: bool = False

    @property
    def schema(self) -> str:
        return self.settings.sql.schema

    @property
    def queue(self) -> str:
        return f"counted.{self.settings.broker.exchange}"

    async def ask(self, sql: str) -> list[tuple[Any, ...]]:
        connection = await asyncpg.connect(self.url)
        try:
            return [tuple(row) for row in await connection.fetch(sql.format(self.schema))]
        finally:
            await connection.close()

    async def prepare(self) -> None:
        for statement in (*ddl(self.schema), f"create table {self.schema}.counts (account text, number integer)"):
            await self.ask(statement)
        for number in range(KEYS):
            await self.ask(f"insert into {self.schema}.counts values ('a-{number}', 0)")

    def relay(self, **variables: str) -> Running:
        """Start a relay."""
        env = environment(
            HOLDFAST_BROKER__URL=self.settings.broker.url.get_secret_value(),
            HOLDFAST_BROKER__EXCHANGE=self.settings.broker.exchange,
            HOLDFAST_BROKER__MAX_DELAY="3600",
            HOLDFAST_LOG__FORMAT="json",
            HOLDFAST_SQL__URL=self.url,
            HOLDFAST_SQL__SCHEMA=self.schema,
            HOLDFAST_SQL__LEASE=str(self.settings.sql.lease),
        )
        relay = Running("relay", folder=self.folder, env=env | variables)
        self.relays.append(relay)
        return relay

    async def site(self, relay: Running) -> Site:
        """Where a relay serves its metrics."""
        await asyncio.to_thread(relay.until, lambda log: "http.serving" in log)
        [line] = [line for line in relay.log.splitlines() if "http.serving" in line]
        return Site(json.loads(line)["url"])

    async def shards_held(self, relays: int) -> None:
        """Wait until all shards are leased, by as many relays."""
        leased = (
            "select count(*), count(distinct token) from {}.cursors where name like 'shard:%' and lease_until > now()"
        )
        await eventually(lambda: self.ask(leased), [(16, relays)])

    async def until_more(self, count: int) -> None:
        """Wait until so many more events have reached the queue."""
        wanted = len(self.arrived.all) + count
        await self.arrived.until_true(
            lambda: len(self.arrived.all) >= wanted, lambda: len(self.arrived.all), within=LIMIT + count / 10
        )

    @asynccontextmanager
    async def written(self, writers: int = 3) -> AsyncIterator[None]:
        """Commit events until the block ends, through outages of the database as well."""
        self._writes = True
        tasks = [asyncio.create_task(self._write()) for _ in range(writers)]
        try:
            yield
        finally:
            self._writes = False
            await asyncio.gather(*tasks)

    async def _write(self) -> None:
        while self._writes:
            await eventually(self._serves)
            with suppress(*LOST):
                connection = await asyncpg.connect(self.url)
                try:
                    while self._writes:
                        await self._commit(connection)
                finally:
                    connection.terminate()

    async def _serves(self) -> bool:
        with suppress(*LOST):
            return bool(await self.ask("select 1"))
        return False

    async def _commit(self, connection: Any) -> None:
        account, outbox = f"a-{self.luck.randrange(KEYS)}", Outbox(self.settings, source="shop")
        with suppress(RolledBack):
            async with connection.transaction():
                count = f"update {self.schema}.counts set number = number + 1 where account = $1 returning number"
                number = await connection.fetchval(count, account)
                await outbox.publish(connection, Counted(account=account, number=number))
                if self.luck.random() < 0.1:
                    raise RolledBack
            self.committed += 1

    async def account(self) -> None:
        """Wait until everything is sent, then hold what was committed against what came.

        Of each account every committed number came, none of a transaction that was rolled back, each number for the
        first time in the order of the commits, and repeats with the id of the first.
        """
        await eventually(lambda: self.ask("select count(*) from {}.events"), [(0,)])
        counts = {row[0]: row[1] for row in await self.ask("select account, number from {}.counts")}
        await self.arrived.until_true(lambda: len({one[:2] for one in self.arrived.all}) >= sum(counts.values()))
        firsts, ids = defaultdict[str, list[int]](list), defaultdict[tuple[str, int], set[str]](set)
        for account, number, event_id in self.arrived.all:
            if (account, number) not in ids:
                firsts[account].append(number)
            ids[account, number].add(event_id)
        assert dict(firsts) == {account: list(range(1, last + 1)) for account, last in counts.items() if last}
        assert {len(same) for same in ids.values()} == {1}
        print(f"{len(ids)} events of {len(firsts)} accounts came, and {len(self.arrived.all) - len(ids)} repeats")


@asynccontextmanager
async def outboxes(url: str, settings: Settings, folder: Path) -> AsyncIterator[Outboxes]:
    """A schema with its tables, and a queue that is read."""
    site = Outboxes(url, settings, folder)
    await site.prepare()
    async with a_broker(settings) as reader:
        exchange, queue = Exchange(settings.broker.exchange), Queue(site.queue, {"x-queue-type": "quorum"})
        await reader.declare(Topology((exchange,), (queue,), (Binding(exchange.name, queue.name, "counted"),)))
        acks = set[asyncio.Task[bool]]()

        def read(delivery: Delivery) -> None:
            event = Counted.model_validate_json(delivery.message.body)
            site.arrived((event.account, event.number, str(delivery.message.headers[headers.EVENT_ID])))
            acks.add(acking := asyncio.ensure_future(delivery.consumer.ack(delivery)))
            acking.add_done_callback(acks.discard)

        consumer = await reader.consume(queue.name, prefetch=1000, on_delivery=read)
        try:
            yield site
        finally:
            await consumer.stop(close=True)
            for relay in site.relays:
                relay.process.send_signal(signal.SIGCONT)
                relay.__exit__()
            await site.ask(f"drop schema {site.schema} cascade")
