"""A handler that takes 5 s (a container that is told to stop)."""

import asyncio

from holdfast import Event, Worker


class Slow(Event, type="slow"):
    pass


worker = Worker("slow")


@worker.handler(Slow)
async def handle(event: Slow) -> None:
    print("handling", flush=True)
    await asyncio.sleep(5)
