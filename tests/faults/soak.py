"""A random soak: a steady load, and faults at random moments and in combination, for as long as was asked."""

import asyncio
import shutil
import signal
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from arena import QUIET, Arena, an_arena
from ledgers import Book
from proxy import Direction
from workers import LEASE

from holdfast.testing.servers import Node

CALM = 4.0
"""Seconds between faults, at most; each lasts as long, at most. They overlap."""

WARMING = 0.1
"""The part of a soak that comes before it is weighed: what a worker makes when it first needs it is there then."""


async def soak(broker: Node, claims: Node, seed: int, *, minutes: float, rate: float) -> Book:
    """One soak, as its ledgers. The first worker is never hit: it is weighed at the beginning and at the end."""
    folder = Path(tempfile.mkdtemp(prefix="holdfast-soak-"))
    try:
        async with an_arena(broker, claims, seed, folder, workers=3) as a:
            a.patience = a.recovery = QUIET + 120 * minutes  # a backlog is no loss
            await _a_while(a, 60 * WARMING * minutes, rate)
            await a.weigh()
            await _a_while(a, 60 * minutes, rate)
            return await a.account_book()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _a_while(a: Arena, seconds: float, rate: float) -> None:
    """So many seconds of load, and of faults."""
    end = time.monotonic() + seconds
    async with a.under_load(int(seconds * rate), rate):
        await asyncio.gather(*(_break_until(a, end, acts) for acts in (_WORKERS, _NETWORK, _SERVERS)))
    a.broker.resume()
    a.claims.resume()


async def _break_until(a: Arena, end: float, acts: tuple[Callable[[Arena], Awaitable[None]], ...]) -> None:
    while time.monotonic() < end:
        await a.sometime(CALM)
        await a.luck.choice(acts)(a)


async def _kill_a_worker(a: Arena) -> None:
    living = [child for child in a.workers.living()[1:] if not child.leaving]
    if living:
        victim = a.luck.choice(living)
        a.workers.kill(victim)
        await a.workers.followed(victim)


async def _freeze_a_worker(a: Arena) -> None:
    living = [child for child in a.workers.living()[1:] if not child.leaving]
    if living:
        frozen, seconds = a.luck.choice(living), a.luck.uniform(0.2, LEASE + 1)
        with a.broken("worker frozen", "what ran" if seconds > LEASE / 3 else "nothing", frozen.pid):
            frozen.process.send_signal(signal.SIGSTOP)
            await a.pause(seconds)
            frozen.process.send_signal(signal.SIGCONT)


async def _replace_a_worker(a: Arena) -> None:
    living = [child for child in a.workers.living()[1:] if not child.leaving]
    if living:
        with a.broken("worker replaced"):
            leaver = a.luck.choice(living)
            leaver.leaving = True
            await a.workers.start(url=leaver.url)
            leaver.process.send_signal(signal.SIGTERM)
            await leaver.gone.wait()


async def _cut(a: Arena) -> None:
    with a.broken("connection cut"):
        a.luck.choice([*a.proxies, a.to_publisher]).cut()


async def _cut_in_a_frame(a: Arena) -> None:
    with a.broken("connection cut in a frame"):
        proxy = a.luck.choice([*a.proxies, a.to_publisher])
        proxy.cut_after(a.luck.randint(1, 60_000), a.luck.choice(list(Direction)))
        await a.sometime()
        proxy.spare()


async def _swallow(a: Arena) -> None:
    with a.broken("half-open connection"):
        proxy = a.luck.choice([*a.proxies, a.to_publisher])
        proxy.swallow(*a.luck.choice([(Direction.TO_SERVER,), (Direction.TO_CLIENT,), tuple(Direction)]))
        await a.sometime(8)
        proxy.resume()


async def _slow(a: Arena) -> None:
    with a.broken("slow network"):
        for proxy in a.proxies:
            proxy.slow(0.02, 200_000)
        await a.sometime(3)
        for proxy in a.proxies:
            proxy.slow()


async def _restart_redis(a: Arena) -> None:
    with a.broken("Redis killed"):
        await asyncio.to_thread(a.claims.kill)
        await asyncio.to_thread(a.claims.start)


async def _freeze_redis(a: Arena) -> None:
    with a.broken("Redis frozen", "what ran"):
        a.claims.pause()
        await a.sometime(5)
        a.claims.resume()


async def _freeze_the_broker(a: Arena) -> None:
    with a.broken("broker frozen"):
        a.broker.pause()
        await a.sometime(6)
        a.broker.resume()


async def _alarm(a: Arena) -> None:
    with a.broken("memory alarm"):
        await asyncio.to_thread(a.broker.ctl, "set_vm_memory_high_watermark", "0.0000001")
        await a.sometime(3)
        await asyncio.to_thread(a.broker.ctl, "set_vm_memory_high_watermark", "0.6")


async def _kill_the_broker(a: Arena) -> None:
    await a.until_queues_are_on_disk()
    with a.broken("broker killed"):
        await asyncio.to_thread(a.broker.kill)
        await asyncio.to_thread(a.broker.start)
    await a.pause(10)


_WORKERS = (_kill_a_worker, _kill_a_worker, _freeze_a_worker, _replace_a_worker)
_NETWORK = (_cut, _cut_in_a_frame, _cut_in_a_frame, _swallow, _slow)
_SERVERS = (_restart_redis, _restart_redis, _freeze_redis, _freeze_the_broker, _alarm, _kill_the_broker)
