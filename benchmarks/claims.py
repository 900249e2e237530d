"""What idempotency costs: claim and complete per event, batched, against one round trip each, in the same run.

    python benchmarks/claims.py redis://localhost:6379/0

Prints microseconds per event at a concurrency of 100, the ratio, CPU, and the bytes a key takes.
"""

import asyncio
import secrets
import statistics
import sys
import time
from collections.abc import Awaitable, Callable

import redis.asyncio

from holdfast.config import IdempotencySettings
from holdfast.idempotency import Claim, claim_key
from holdfast.idempotency.redis import RedisClaims, lua

CONCURRENCY, EVENTS, RUNS = 100, 20_000, 5


def a_claim() -> Claim:
    key = claim_key("bench", "billing.charge", "shop", secrets.token_hex(16))
    return Claim(key, secrets.token_bytes(8), secrets.token_bytes(8), b"worker-A")


async def at_once(handle: Callable[[], Awaitable[object]]) -> tuple[float, float]:
    """Microseconds of time and of CPU for one event."""

    async def one_by_one() -> None:
        for _ in range(EVENTS // CONCURRENCY):
            await handle()

    started, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(one_by_one() for _ in range(CONCURRENCY)))
    return (time.perf_counter() - started) / EVENTS * 1e6, (time.process_time() - cpu) / EVENTS * 1e6


async def main(url: str) -> None:
    store = RedisClaims(url, IdempotencySettings(timeout=10, prefix="bench"))
    server = redis.asyncio.from_url(url, max_connections=CONCURRENCY)
    claiming, completing = server.register_script(lua.CLAIM.source), server.register_script(lua.COMPLETE.source)

    async def batched() -> None:
        claim = a_claim()
        await store.claim(claim)
        await store.complete(claim)

    async def one_round_trip_each() -> None:
        claim = a_claim()
        await claiming([claim.key], [6, claim.token, claim.fingerprint, claim.owner, 86_400_000, 0, 3])
        await completing([claim.key], [3, claim.token, claim.fingerprint, 86_400_000])

    figures: dict[str, list[tuple[float, float]]] = {"batched": [], "one round trip each": []}
    for _ in range(RUNS):  # interleaved, so that a busy moment of the machine touches both
        figures["batched"].append(await at_once(batched))
        figures["one round trip each"].append(await at_once(one_round_trip_each))
    claim = a_claim()
    await store.claim(claim)
    running = await server.memory_usage(claim.key)
    await store.complete(claim)
    done = await server.memory_usage(claim.key)

    medians = {name: statistics.median(took for took, _ in runs) for name, runs in figures.items()}
    for name, runs in figures.items():
        cpu = statistics.median(used for _, used in runs)
        print(
            f"{name:20} {medians[name]:8.1f} us an event   {cpu:8.1f} us of CPU   ({1e6 / medians[name]:,.0f} events/s)"
        )
    ratio = medians["one round trip each"] / medians["batched"]
    print(f"ratio {ratio:.2f}   bytes of a key, as Redis counts it alone: {running} running, {done} done")
    async for key in server.scan_iter("bench:*", count=1000):
        await server.unlink(key)
    await server.aclose()
    await store.close()


asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "redis://localhost:6379/0"))
