"""Where a run takes place: workers in processes of their own, a publisher, proxies between them and the broker, and
the ledgers of all of them."""

import asyncio
import json
import os
import random
import re
import signal
import sys
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis
from aiormq.exceptions import ChannelNotFoundEntity
from breaking import a_channel, through
from fault_app import ATTEMPTS, QUEUES, Blocking, Job, Link
from ledgers import Book, Ending, Entry, Explains, Fault, Growth, Journal, Letter, Outcome, Promise, Sent
from proxy import Proxy, proxy_to

from holdfast import Event, Publisher, PublishError, PublishRefused, Settings, Unroutable
from holdfast.broker import ladder
from holdfast.events import headers as h
from holdfast.events.envelope import seal
from holdfast.testing.servers import Node, free_port

HERE = Path(__file__).parent
LEASE = 3.0
LONGEST_DELAY = 30.0
QUIET = 60.0
"""Seconds a run may take to come to rest when all is healed. Whatever is open then is told as lost or late. In a
cluster it is more: a copy that leaves its delay while a node dies is tried again by the broker after 3 minutes
(`dead_letter_worker_publisher_confirm_timeout`)."""

MIX = (
    *((Job, "return"),) * 55,
    *((Job, "linger"),) * 10,
    *((Job, "slow"),) * 6,
    *((Job, "fail once"),) * 9,
    *((Job, "fail"),) * 2,
    *((Blocking, "return"),) * 4,
    *((Blocking, "fail once"),) * 1,
    *((Link, "return"),) * 12,
    *((Link, "fail once"),) * 1,
)
"""What a load is made of, in hundredths."""


@dataclass(slots=True, eq=False)
class Child:
    """One worker process. `point` is where it dies when it is armed."""

    process: asyncio.subprocess.Process
    port: int
    log: Path
    url: str
    point: str
    leaving: bool = False
    stopped_at: float = 0.0
    how: str = "worker killed"
    attached: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def pid(self) -> int:
        return self.process.pid


class Arena:
    """One run. Whatever happens in it is drawn from `luck`, which the seed decides."""

    def __init__(
        self, broker: Node, claims: Node, settings: Settings, seed: int, folder: Path, urls: list[str]
    ) -> None:
        self.broker, self.claims, self.settings = broker, claims, settings
        self.luck = random.Random(seed)
        self.children: list[Child] = []
        self.faults: list[Fault] = []
        self.sent: list[Sent] = []
        self.letters: list[Letter] = []
        self.proxies: list[Proxy] = []
        self.to_publisher: Proxy
        self._urls, self._folder = urls, folder
        self._journal = Journal(folder / "journal")
        self._entries: list[Entry] = []
        self._ended: set[tuple[str, str]] = set()
        self._dead: set[tuple[str, str]] = set()
        self._heirs: dict[str, set[str]] = defaultdict(set)
        self._waiting: list[tuple[str, str]] = []
        self._attached: Counter[int] = Counter()
        self._growing: dict[int, dict[str, int]] = {}
        self._spawned = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        self.publisher: Publisher
        self._slots = asyncio.Semaphore(200)
        self.patience, self.recovery = QUIET, 45.0

    @property
    def name(self) -> str:
        return self.settings.broker.exchange

    def queue(self, handler: str) -> str:
        return f"{self.name}.{handler}"

    @property
    def promise(self) -> Promise:
        routes = {"job": "work", "blocking": "block", "link": "link"}
        return Promise(
            routes={event: (self.queue(handler),) for event, handler in routes.items()},
            follows={self.queue("link"): self.queue("linked")},
            attempts=ATTEMPTS,
            concurrency=self.settings.worker.concurrency,
            recovery=self.recovery,
        )

    # Workers

    async def start_worker(self, point: str = "", url: str | None = None) -> Child:
        """A worker that consumes all its queues; whoever dies unasked is followed by another."""
        url = url or self._urls[self._spawned % len(self._urls)]
        self._spawned += 1
        port, broker, worker = free_port(), self.settings.broker, self.settings.worker
        log = self._folder / f"worker-{self._spawned}.log"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")} | {
            "HOLDFAST_BROKER__URL": url,
            "HOLDFAST_BROKER__EXCHANGE": self.name,
            "HOLDFAST_BROKER__HEARTBEAT": str(broker.heartbeat),
            "HOLDFAST_BROKER__MAX_DELAY": str(broker.max_delay),
            "HOLDFAST_IDEMPOTENCY__URL": self.settings.claims_url,
            "HOLDFAST_IDEMPOTENCY__PREFIX": self.name,
            "HOLDFAST_IDEMPOTENCY__LEASE": str(LEASE),
            "HOLDFAST_WORKER__CONCURRENCY": str(worker.concurrency),
            "HOLDFAST_WORKER__GRACE": str(worker.grace),
            "HOLDFAST_HTTP__PORT": str(port),
            "HOLDFAST_LOG__FORMAT": "json",
            "HOLDFAST_LOG__SUCCESSES": "100000",
            "PYTHONPATH": os.pathsep.join(path for path in (str(HERE), *sys.path) if path),
            "TEST_JOURNAL": str(self._folder / "journal"),
            "TEST_NAME": self.name,
            "TEST_POINT": point,
        }
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, str(HERE / "fault_app.py")), env=environment, stdout=output, stderr=output
            )
        child = Child(process, port, log, url, point)
        self.children.append(child)
        self._keep(self._watch(child))
        return child

    async def until_attached(self, child: Child, within: float = QUIET) -> None:
        """Return when it takes from all its queues. Fails with the end of its log."""
        try:
            async with asyncio.timeout(within):
                while self._attached[child.pid] < len(QUEUES):
                    if child.gone.is_set():
                        return
                    self.read()
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"not attached within {within:g} s: {child.log.read_text()[-3000:]}") from None
        child.attached.set()

    async def _watch(self, child: Child) -> None:
        await child.process.wait()
        child.gone.set()
        if child.leaving:
            return
        self.read()
        died = [entry.at for entry in self._entries if entry.phase == "dying" and entry.pid == child.pid]
        at = child.stopped_at or (died[-1] if died else time.monotonic())
        follower = await self.start_worker(url=child.url)
        with suppress(AssertionError):
            await self.until_attached(follower)
        what = child.how if child.stopped_at or not child.point else f"worker killed {child.point}"
        self.faults.append(Fault(what, at, time.monotonic(), "its process", child.pid))

    def living(self) -> list[Child]:
        return [child for child in self.children if not child.gone.is_set()]

    def kill(self, child: Child) -> None:
        child.stopped_at = time.monotonic()
        child.process.kill()

    async def followed(self, child: Child) -> None:
        """Return when it is gone and its follower takes its place."""
        await child.gone.wait()
        async with asyncio.timeout(QUIET):
            while not any(fault.pid == child.pid for fault in self.faults):
                await asyncio.sleep(0.05)

    # Load

    async def publish(self, event: Event, *, times: int = 1, delay: float | None = None) -> None:
        """Publish an event until it is confirmed, and note what was said of it. More `times`: as a publisher does that
        is not sure."""
        key, seq = getattr(event, "key", ""), getattr(event, "seq", 0)
        envelope, at = seal(event, source="faults"), time.monotonic()
        event_id, told = envelope.metadata.event_id, list[Outcome]()
        async with self._slots:
            for _ in range(times):
                while True:
                    try:
                        await self.publisher.publish(envelope, delay=delay)
                        told.append("confirmed")
                        break
                    except Unroutable:
                        told.append("returned")
                    except PublishRefused:
                        told.append("nacked")
                    except PublishError:
                        told.append("unknown")
                    if len(told) > 60:
                        break
                    await asyncio.sleep(0.1)
        outcome: Outcome = "confirmed" if "confirmed" in told else told[-1]
        # One whose connection was lost before its confirm may be there several times.
        cuts = sum(fault.at <= time.monotonic() and at <= fault.until for fault in self.faults)
        self.sent.append(
            Sent(event_id, envelope.metadata.event_type, at, len(told) + cuts, outcome, tuple(told), key, seq)
        )
        if outcome == "confirmed":
            queue = self.promise.routes[envelope.metadata.event_type][0]
            self._waiting.append((event_id, queue))

    async def load(
        self, count: int, rate: float, mix: tuple[tuple[type[Event], str], ...] = MIX, delayed: float = 0.04
    ) -> None:
        """Publish `count` events at `rate` a second; a few of them twice, and a share of them `delayed`."""
        begin = time.monotonic()
        async with asyncio.TaskGroup() as publishing:
            for number in range(count):
                kind, does = self.luck.choice(mix)
                keyed = {"key": f"k{number % 7}", "seq": number} if kind is Job else {}
                times = 2 if self.luck.random() < 0.02 else 1
                delay = self.luck.uniform(0.1, 1.5) if self.luck.random() < delayed else None
                publishing.create_task(self.publish(kind(does=does, **keyed), times=times, delay=delay))  # type: ignore[arg-type]
                await asyncio.sleep(max(0.0, begin + number / rate - time.monotonic()))

    @asynccontextmanager
    async def under_load(self, count: int = 300, rate: float = 150, **more: Any) -> AsyncIterator[None]:
        """What is done in the block is done while events are published."""
        loading = asyncio.create_task(self.load(count, rate, **more))
        try:
            yield
            await loading
        finally:
            loading.cancel()

    async def sometime(self, longest: float = 1.0) -> None:
        """Wait for a moment that luck decides."""
        await asyncio.sleep(self.luck.uniform(0.1, longest))

    @contextmanager
    def broken(self, what: str, explains: Explains = "nothing", pid: int = 0) -> Iterator[None]:
        """Note a fault for as long as the block lasts."""
        at = time.monotonic()
        try:
            yield
        finally:
            self.faults.append(Fault(what, at, time.monotonic(), explains, pid))

    # Rest, and the account

    def read(self) -> None:
        for entry in self._journal.fresh():
            self._entries.append(entry)
            if entry.phase == "attached":
                self._attached[entry.pid] += 1
            if entry.phase == "effect" or entry.outcome == "dead_lettered":
                self._ended.add((entry.event_id, entry.queue))
                if entry.outcome == "dead_lettered":
                    self._dead.add((entry.event_id, entry.queue))
                if entry.cause:
                    self._heirs[entry.cause].add(entry.event_id)

    def open(self) -> int:
        """How many confirmed events have no end yet."""
        self.read()
        link, linked = self.queue("link"), self.queue("linked")

        def waits(event_id: str, queue: str) -> bool:
            if (event_id, queue) not in self._ended:
                return True
            if queue != link or (event_id, queue) in self._dead:
                return False
            return not any((heir, linked) in self._ended for heir in self._heirs[event_id])

        self._waiting = [place for place in self._waiting if waits(*place)]
        return len(self._waiting)

    async def quiet(self) -> bool:
        """Return when every event has an end and nothing moves any more; False where that takes longer."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self.patience):
                while self.open():
                    await asyncio.sleep(0.1)
                seen = -1
                while (
                    seen != (seen := sum(e.phase != "gauge" for e in self._entries)) or await self._waiting_messages()
                ):
                    await asyncio.sleep(0.5)
                    self.read()
                return True
        return False

    async def _depths(self, names: list[str]) -> dict[str, int]:
        async with a_channel(self.settings) as channel:
            return {name: (await channel.queue_declare(name, passive=True)).message_count or 0 for name in names}

    async def _waiting_messages(self) -> int:
        levels = [queue.name for queue in ladder.ladder(LONGEST_DELAY).queues if queue.name != ladder.UNROUTED]
        try:
            return sum((await self._depths([*map(self.queue, QUEUES), *levels])).values())
        except Exception:  # noqa: BLE001 (the broker is not there yet)
            return 1

    async def take_letters(self) -> None:
        """Move what is in the dead-letter queues to the ledger, and what came out of a delay and found no queue."""
        routes = {sent.event_id: self.promise.routes[sent.type][0] for sent in self.sent}
        for queue, dead in [*((name, f"{name}.dead") for name in map(self.queue, QUEUES)), ("", ladder.UNROUTED)]:
            with suppress(ChannelNotFoundEntity):  # deleted, and not needed since
                async with a_channel(self.settings) as channel:
                    while (got := await channel.basic_get(dead, no_ack=True)).delivery_tag is not None:
                        told = got.header.properties.headers or {}
                        event_id = str(told.get(h.EVENT_ID))
                        reason = str(told.get(h.REASON, "unrouted"))
                        self.letters.append(Letter(event_id, queue or routes.get(event_id, ""), reason))

    def weigh(self) -> None:
        """Remember what the living processes hold now, at rest."""
        self._growing = {child.pid: figures for child in self.living() if (figures := self._gauge(child.pid))}

    def _gauge(self, pid: int) -> dict[str, int]:
        self.read()
        return next((e.figures for e in reversed(self._entries) if e.phase == "gauge" and e.pid == pid), {})

    def _growth(self) -> tuple[Growth, ...]:
        allowed = {"descriptors": 6, "threads": self.settings.worker.concurrency + 4, "tasks": 12, "memory": 40_000}
        living = {child.pid for child in self.living()}
        return tuple(
            Growth(f"{name} of {pid}", before[name], after[name], allowed[name])
            for pid, before in self._growing.items()
            if pid in living and (after := self._gauge(pid))
            for name in allowed
        )

    async def account_book(self) -> Book:
        """Come to rest, stop the workers, and close the ledgers."""
        await self.quiet()
        await asyncio.sleep(1.1 if self._growing else 0)
        growth, asked = self._growth(), self.living()
        counted: dict[tuple[int, str, str], int] = {}
        for child in asked:
            counted |= await asyncio.to_thread(_scrape, child)
        codes = {}
        for child in asked:
            child.leaving = True
            child.process.send_signal(signal.SIGTERM)
        for child in asked:
            codes[child.pid] = await _ended(child)
        logged: dict[tuple[int, str, str], int] = {}
        for child in asked:
            logged |= _log_lines(child)
        await self.take_letters()
        left = await self._depths([self.queue(handler) for handler in QUEUES])
        self.read()
        ending = Ending(left, self._stuck(), codes, growth, counted, logged)
        everything = (tuple(self.sent), tuple(self._entries), tuple(self.faults), tuple(self.letters))
        return Book(self.promise, *everything, ending)

    def _stuck(self) -> tuple[str, ...]:
        with redis.Redis.from_url(self.claims.url) as client:
            keys = [key for key in client.scan_iter(f"{self.name}:*", count=1000) if b":worker:" not in key]
            held = [key for key in keys if (client.get(key) or b"").startswith(b"r")]
        return tuple(key.decode() for key in held if b":probe:" not in key)

    # Begin and end

    def _keep(self, coroutine: Any) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        for child in self.children:
            child.leaving = True
            if child.process.returncode is None:
                child.process.kill()
                await child.process.wait()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with suppress(Exception):
            async with a_channel(self.settings) as channel:
                for handler in QUEUES:
                    await channel.queue_delete(self.queue(handler))
                    await channel.queue_delete(f"{self.queue(handler)}.dead")
                await channel.exchange_delete(self.name)
        self._journal.close()


@asynccontextmanager
async def an_arena(
    broker: Node, claims: Node, seed: int, folder: Path, *, workers: int = 2, concurrency: int = 16, point: str = "",
    urls: list[str] | None = None,
) -> AsyncIterator[Arena]:  # fmt: skip
    """Workers that consume and a publisher, each behind a proxy of its own. `urls`: where workers and, last, the
    publisher connect to, instead of the broker's own."""
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
        of_workers = [proxy.url(broker.url) for proxy in proxies[:-1]]
        arena = Arena(broker, claims, settings, seed, folder, of_workers)
        stack.push_async_callback(arena.close)
        arena.proxies, arena.to_publisher = proxies[:-1], proxies[-1]
        for child in [await arena.start_worker(point if number == 0 else "") for number in range(workers)]:
            await arena.until_attached(child)
        arena.publisher = await stack.enter_async_context(
            Publisher(through(arena.to_publisher, settings), emit=lambda fact: None)
        )
        yield arena


async def _ended(child: Child) -> int:
    try:
        async with asyncio.timeout(15):
            return await child.process.wait()
    except TimeoutError:
        child.process.kill()
        await child.process.wait()
        return -1000


_SETTLED = re.compile(r"holdfast_messages_settled_total\{(.*)\} (\S+)")
_LABEL = re.compile(r'(\w+)="([^"]*)"')


def _scrape(child: Child) -> dict[tuple[int, str, str], int]:
    counts: Counter[tuple[int, str, str]] = Counter()
    with urllib.request.urlopen(f"http://127.0.0.1:{child.port}/metrics", timeout=10) as response:
        for labels, figure in _SETTLED.findall(response.read().decode()):
            told = dict(_LABEL.findall(labels))
            counts[child.pid, told["queue"], told["outcome"]] += int(float(figure))
    return dict(counts)


def _log_lines(child: Child) -> dict[tuple[int, str, str], int]:
    counts: Counter[tuple[int, str, str]] = Counter()
    with child.log.open(errors="replace") as lines:
        for line in lines:
            if '"outcome"' in line:
                told = json.loads(line)
                counts[child.pid, told["queue"], told["outcome"]] += 1
    return dict(counts)
