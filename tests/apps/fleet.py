"""A worker of a mixed fleet, on whichever Holdfast is first on the path: `python fleet.py NAME`. Until SIGTERM it packs
parcels and ships what was packed, each third one at the second attempt. It publishes who did what."""

import asyncio
import logging
import os
import signal
import sys

import holdfast
from holdfast import Context, Event, Retry, Worker, fixed


class Parcel(Event, type="fleet.parcel"):
    number: int


class Packed(Event, type="fleet.packed"):
    number: int
    packed_by: str
    attempt: int


class Shipped(Event, type="fleet.shipped"):
    number: int
    packed_by: str
    shipped_by: str
    attempts: tuple[int, int]


NAME = sys.argv[1] if __name__ == "__main__" else ""
worker = Worker(os.environ.get("TEST_WORKER", "fleet"))
SOON = Retry(attempts=3, backoff=fixed(0.3))


@worker.handler(Parcel, retry=SOON, prefetch=4)
async def pack(event: Parcel, ctx: Context) -> None:
    if event.number % 3 == 0 and ctx.attempt == 1:
        raise RuntimeError("no box at hand")
    await ctx.publish(Packed(number=event.number, packed_by=NAME, attempt=ctx.attempt))


@worker.handler(Packed, retry=SOON, prefetch=4)
async def ship(event: Packed, ctx: Context) -> None:
    if event.number % 3 == 1 and ctx.attempt == 1:
        raise RuntimeError("no van at hand")
    done = Shipped(
        number=event.number,
        packed_by=event.packed_by,
        shipped_by=NAME,
        attempts=(event.attempt, ctx.attempt),
    )
    await ctx.publish(done)


async def main() -> None:
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
    await worker.run()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    print("runs on", holdfast.__file__, flush=True)
    asyncio.run(main())
