"""A worker for a process of its own. It says on standard output what happens to it; a line on standard input lets
the handlers go on that wait for it."""

import asyncio
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Literal

from holdfast import Context, Event, Worker, load_settings
from holdfast.telemetry import Attached, Draining, Fact, LeaseTaken, Settled

MARK = "@ "


class Task(Event, type="task"):
    name: str
    does: Literal["return", "wait", "hang", "ignore"] = "return"


class BlockingTask(Event, type="blocking"):
    name: str


def say(*words: object) -> None:
    print(MARK + " ".join(map(str, words)), flush=True)


def tell(fact: Fact) -> None:
    match fact:
        case Attached():
            say("attached")
        case Draining():
            say("draining")
        case LeaseTaken(owner):
            say("lease", owner)
        case Settled():
            say("settled", fact.outcome)
        case _:
            pass


@asynccontextmanager
async def lifespan() -> AsyncIterator[asyncio.Event]:
    go, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_reader(sys.stdin.fileno(), go.set)
    try:
        yield go
    finally:
        loop.remove_reader(sys.stdin.fileno())
        say("closed")


settings = load_settings()
worker = Worker(f"{settings.broker.exchange}.w", settings=settings, lifespan=lifespan, listeners=[tell])


@worker.handler(Task)
async def handle(event: Task, ctx: Context) -> None:
    say("began", event.name)
    try:
        match event.does:
            case "wait":
                await ctx.state.wait()
            case "hang":
                await asyncio.Event().wait()
            case "ignore":
                while True:
                    with suppress(asyncio.CancelledError):
                        await asyncio.Event().wait()
            case "return":
                pass
    except asyncio.CancelledError:
        say("cancelled", event.name)
        raise
    say("ended", event.name)


@worker.handler(BlockingTask)
def block(event: BlockingTask) -> None:
    say("began", event.name)
    threading.Event().wait()
