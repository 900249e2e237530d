"""Where a run takes place: workers in processes of their own, a publisher, proxies between them and the broker, and
the ledgers of all of them."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import queues
import redis
from aiormq.exceptions import ChannelNotFoundEntity
from breaking import a_channel, through
from commands import environment, holdfast
from fault_app import ATTEMPTS, ORDERED, QUEUES, Blocking
from ledgers import Book, Ending, Explains, Fault, Growth, Held, Journal, Letter, Promise, Series, Skipped
from load import Load
from proxy import Proxy, proxy_to
from reader import Reader
from redis_pair import Pair
from waiting import eventually
from workers import HELD, LEASE, PATIENCE, WorkerProcess, Workers, figure, logged, scraped, under_way

from holdfast import Publisher, Settings
from holdfast.broker import ladder, ledger_queue, members_queue, partition_queues
from holdfast.consumer.ordering.asking import ask_owner
from holdfast.events import headers as h
from holdfast.idempotency import claim_key
from holdfast.testing.servers import Node, free_port

LONGEST_DELAY = 30.0
GAUGED = 1.1
"""Seconds after which every process has told again what it holds."""
QUIET = PATIENCE
"""Seconds a run may take to come to rest when all is healed. Whatever is open then is told as lost or late."""


class Arena:
    """One run. Whatever happens in it is drawn from `luck`, which the seed decides."""

    load: Load

    def __init__(
        self,
        broker: Node,
        claims: Node,
        settings: Settings,
        seed: int,
        folder: Path,
        proxies: list[Proxy],
        partitions: int,
    ) -> None:
        self.broker, self.claims, self.settings, self.partitions = broker, claims, settings, partitions
        self.luck = random.Random(seed)
        self.faults: list[Fault] = []
        self.letters: list[Letter] = []
        self.skipped: list[Skipped] = []
        *self.proxies, self.to_publisher = proxies
        self.journal = Journal(folder / "journal")
        self.reader = Reader(self.journal, self.queue("link"), self.queue("linked"))
        urls = [proxy.url(broker.url) for proxy in self.proxies]
        self.workers = Workers(settings, folder, urls, self.reader, self.faults, partitions)
        self.patience, self.recovery = QUIET, 45.0
        self.declared = time.monotonic()
        self._growing: dict[int, dict[str, int]] = {}
        self._channels = 0

    def queue(self, handler: str) -> str:
        return f"{self.settings.broker.exchange}.{handler}"

    @property
    def ordered(self) -> str:
        """The queue whose order is promised."""
        return self.queue(ORDERED)

    @property
    def owned(self) -> list[str]:
        """The queues that have an owner each: the ordered one, and its partitions behind it."""
        return [*dict.fromkeys((self.ordered, *partition_queues(self.ordered, self.partitions)))]

    def proxy_of(self, child: WorkerProcess) -> Proxy:
        """The proxy through which a worker reaches the broker."""
        return next(proxy for proxy in self.proxies if proxy.url(self.broker.url) == child.url)

    @property
    def _way(self) -> list[str]:
        """The queues in which messages wait, in the order in which they come through them."""
        levels = [queue.name for queue in ladder.ladder(LONGEST_DELAY).queues if queue.name != ladder.UNROUTED]
        return [*reversed(levels), *dict.fromkeys((*map(self.queue, QUEUES), *self.owned))]

    @property
    def promise(self) -> Promise:
        routes = {"job": "work", "blocking": "block", "link": "link", "placed": ORDERED}
        return Promise(
            routes={event: (self.queue(handler),) for event, handler in routes.items()},
            follows={self.queue("link"): self.queue("linked")},
            attempts=ATTEMPTS,
            concurrency=self.settings.worker.concurrency,
            recovery=self.recovery,
            ordered=frozenset({self.ordered}),
            partitions=self.partitions,
        )

    # What is done in a run

    @asynccontextmanager
    async def under_load(self, count: int = 300, rate: float = 150, **more: Any) -> AsyncIterator[None]:
        """What is done in the block is done while events are published."""
        loading = asyncio.create_task(self.load.steady(count, rate, **more))
        try:
            yield
            await loading
        finally:
            loading.cancel()

    async def sometime(self, longest: float = 1.0, *, shortest: float = 0.1) -> None:
        """Wait for a moment that luck decides."""
        await self.pause(self.luck.uniform(shortest, longest))

    async def pause(self, seconds: float) -> None:
        """Let time pass: a fault lasts, or a figure is noted that nobody announces."""
        await asyncio.sleep(seconds)

    @contextmanager
    def broken(self, what: str, explains: Explains = "nothing", pid: int = 0) -> Iterator[None]:
        """Note a fault for as long as the block lasts."""
        at = time.monotonic()
        try:
            yield
        finally:
            self.faults.append(Fault(what, at, time.monotonic(), explains, pid))

    async def until_queues_are_on_disk(self) -> None:
        """Wait until a killed broker knows all queues again. It writes the names of new quorum queues to disk up to 3 s
        later (Erlang's `dets`); killed before, it brings such a queue back without a leader, for good."""
        await self.pause(max(0.0, self.declared + 5 - time.monotonic()))

    def grant_the_brokers_timer(self) -> None:
        """Have the run wait longer for rest: what leaves its delay and finds its way gone, or its broker dying, is
        tried again by the broker every 3 minutes, if 3 minutes old (`dead_letter_worker_publisher_confirm_timeout`)."""
        self.patience, self.recovery = 7 * self.patience, 400.0

    # Keys that a dead letter holds

    async def until_held(self, keys: int) -> None:
        """Return when an owner says that dead letters hold so many keys."""

        async def held() -> float:
            living = self.workers.living()
            return sum(await asyncio.gather(*(asyncio.to_thread(figure, one, HELD, self.ordered) for one in living)))

        await eventually(held, keys, within=self.patience, every=0.1)

    def mend(self) -> None:
        """Let what failed until now succeed."""
        self.workers.well.touch()

    async def pass_over(self, key: str) -> None:
        """Have a key go on without the dead letter that holds it."""
        at = time.monotonic()
        answer = await ask_owner(self.settings, self.ordered, "skip", key)
        assert "done" in answer, answer
        self.skipped.append(Skipped(key, self.ordered, at))

    async def replay(self, key: str) -> None:
        """Replay the dead letter of a key."""
        self.reader.read()
        known = {entry.event_id for entry in self.reader.entries if entry.key == key}
        dead = {e.event_id for e in self.reader.entries if e.outcome == "dead_lettered" and e.event_id in known}
        variables = environment(
            HOLDFAST_BROKER__URL=self.broker.url,
            HOLDFAST_BROKER__EXCHANGE=self.settings.broker.exchange,
            HOLDFAST_DEAD_LETTERS__FOLDER=str(self.workers.well.parent / "dead"),
        )
        words = ("dead", "replay", self.ordered, "--key", key, "--yes", "--wait", "30")
        ended = await asyncio.to_thread(holdfast, *words, folder=self.workers.well.parent, env=variables)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        self.letters += [Letter(event_id, self.ordered, "replayed") for event_id in sorted(dead)]

    # Rest, and the account

    async def quiet(self) -> bool:
        """Return when every event has an end and nothing moves any more; False where that takes longer."""
        end, still, seen = time.monotonic() + self.patience, 0, -1

        async def rests() -> bool:
            nonlocal still, seen
            rest = seen == (seen := self.reader.moves()) and not await self._is_busy()
            still = still + 1 if rest else 0
            return still == 2  # looks at which nothing had moved: what goes from queue to queue is in none of them

        try:
            await eventually(self.reader.open, 0, within=self.patience, every=0.1)
            await eventually(rests, within=max(0.0, end - time.monotonic()), every=0.5)
        except AssertionError:
            return False
        return True

    async def _is_busy(self) -> bool:
        """Whether a message waits in a queue, or a worker has one, such as one whose copy it cannot publish yet."""
        if await queues.waiting(self.settings, self._way):
            return True
        living = self.workers.living()
        return any(await asyncio.gather(*(asyncio.to_thread(under_way, child) for child in living)))

    async def take_letters(self) -> None:
        """Move what is in the dead-letter queues to the ledger, and what came out of a delay and found no queue. (There
        may be a copy of an earlier run as well, late by the broker's timer.)"""
        routes = {sent.event_id: self.promise.routes[sent.type][0] for sent in self.load.sent}
        own = routes.keys() | {entry.event_id for entry in self.reader.entries}
        for queue, dead in [*((name, f"{name}.dead") for name in map(self.queue, QUEUES)), ("", ladder.UNROUTED)]:
            with suppress(ChannelNotFoundEntity):  # deleted, and not needed since
                for told in await queues.take(self.settings, dead):
                    event_id, reason = str(told.get(h.EVENT_ID)), str(told.get(h.REASON, "unrouted"))
                    if queue or event_id in own:
                        self.letters.append(Letter(event_id, queue or routes.get(event_id, ""), reason))

    async def weigh(self) -> None:
        """Have each worker start all its threads, come to rest, and remember what the living processes hold then."""
        await self.load.steady(500, 2000, mix=((Blocking, "return"),))  # more at once than there may be threads
        await self.quiet()
        await self.pause(GAUGED)
        self._growing = {
            child.pid: figures for child in self.workers.living() if (figures := self.reader.gauge(child.pid))
        }
        self._channels = await queues.channels(self.broker)

    async def _growth(self) -> tuple[Growth, ...]:
        """What has grown since it was weighed. More is allowed for a channel here and there, which a worker opens when
        it first publishes to a level of the ladder; its tasks are some of the client library's."""
        if not self._growing:
            return ()
        await self.pause(GAUGED)
        allowed = {"descriptors": 4, "threads": 2, "tasks": 12, "memory": 20_000}
        living = {child.pid for child in self.workers.living()}
        channels = Growth("channels of the broker", self._channels, await queues.channels(self.broker), 12)
        return channels, *(
            Growth(f"{name} of {pid}", before[name], after[name], allowed[name])
            for pid, before in self._growing.items()
            if pid in living and (after := self.reader.gauge(pid))
            for name in allowed
        )

    async def account_book(self) -> Book:
        """Come to rest, stop the workers, and close the ledgers."""
        await self.quiet()
        growth, asked = await self._growth(), self.workers.living()
        counted = merged([await asyncio.to_thread(scraped, child) for child in asked])
        codes = await self.workers.leave(asked)
        written = merged([logged(child) for child in asked])
        await self.take_letters()
        left = {
            queue: await queues.left(self.settings, queue, is_single=queue in self.owned)
            for queue in dict.fromkeys((*map(self.queue, QUEUES), *self.owned))
        }
        self.reader.read()
        in_ledgers = {queue: await queues.kinds(self.settings, ledger_queue(queue)) for queue in self.owned}
        ending = Ending(left, self._held(), codes, in_ledgers, growth, counted, written)
        everything = (tuple(self.load.sent), tuple(self.reader.entries), tuple(self.faults), tuple(self.letters))
        return Book(self.promise, *everything, ending, tuple(self.skipped))

    def _held(self) -> tuple[Held, ...]:
        prefix = self.settings.idempotency.prefix
        places = {(entry.event_id, entry.queue) for entry in self.reader.entries if entry.event_id}
        sources = ("faults", self.settings.broker.exchange)
        whose = {claim_key(prefix, place[1], source, place[0]): place for place in places for source in sources}
        claims = self.claims.master if isinstance(self.claims, Pair) else self.claims
        with redis.Redis.from_url(claims.url) as client:
            keys = [key for key in client.scan_iter(f"{prefix}:*", count=1000) if b":worker:" not in key]
            held = [key.decode() for key in keys if (client.get(key) or b"").startswith(b"r")]
        return tuple(Held(key, *whose.get(key, ("", ""))) for key in held if ":probe:" not in key)

    async def close(self) -> None:
        await self.workers.close()
        with suppress(Exception):
            async with a_channel(self.settings) as channel:
                for handler in QUEUES:
                    await channel.queue_delete(self.queue(handler))
                    await channel.queue_delete(f"{self.queue(handler)}.dead")
                for queue in self.owned:
                    await channel.queue_delete(queue)
                    await channel.queue_delete(ledger_queue(queue))
                await channel.queue_delete(members_queue(self.ordered, self.partitions))
                await channel.exchange_delete(self.settings.broker.exchange)
        self.journal.close()


def merged(figures: list[dict[Series, int]]) -> dict[Series, int]:
    return {place: count for one in figures for place, count in one.items()}


@asynccontextmanager
async def an_arena(
    broker: Node, claims: Node, seed: int, folder: Path, *, workers: int = 2, concurrency: int = 16, point: str = "",
    urls: list[str] | None = None, partitions: int = 1,
) -> AsyncIterator[Arena]:  # fmt: skip
    """Workers that consume and a publisher, each behind a proxy of its own. `urls`: where workers and, last, the
    publisher connect to, instead of the broker's own. `partitions`: of the ordered handler."""
    name = f"f{seed:x}-{free_port()}"
    settings = Settings(
        _env_file=None,  # type: ignore[call-arg]
        broker={  # type: ignore[arg-type]
            "url": broker.url, "exchange": name, "max_delay": LONGEST_DELAY, "heartbeat": 2, "publish_timeout": 3.0,
        },
        idempotency={"url": claims.url, "prefix": name, "lease": LEASE},  # type: ignore[arg-type]
        worker={"grace": 5, "concurrency": concurrency},  # type: ignore[arg-type]
    )  # fmt: skip
    async with AsyncExitStack() as stack:
        proxies = [await stack.enter_async_context(proxy_to(url)) for url in urls or [broker.url, broker.url]]
        arena = Arena(broker, claims, settings, seed, folder, proxies, partitions)
        stack.push_async_callback(arena.close)
        for child in [await arena.workers.start(point if number == 0 else "") for number in range(workers)]:
            await arena.workers.until_attached(child)
        arena.declared = time.monotonic()
        publisher = Publisher(through(arena.to_publisher, settings), emit=lambda fact: None)
        await stack.enter_async_context(publisher)
        arena.load = Load(publisher, settings, arena.promise, arena.luck, arena.reader, arena.faults)
        yield arena
