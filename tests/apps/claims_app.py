"""A worker for a process of its own, whose effects are lines of a file that outlives it."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

from child_app import say, tell

from holdfast import Context, Event, Retry, Worker, fixed, load_settings

LEDGER = Path(os.environ.get("TEST_LEDGER", "ledger"))
NEIGHBOURS = int(os.environ.get("TEST_NEIGHBOURS", "0"))


class Work(Event, type="work"):
    name: str
    does: Literal["return", "wait", "kill the process", "stay beside it"] = "return"


class First(Event, type="first"):
    name: str


class Second(Event, type="second"):
    name: str


class Third(Event, type="third"):
    name: str


def note(*words: object) -> None:
    """One line, written at once."""
    with LEDGER.open("a") as ledger:
        ledger.write(" ".join(map(str, words)) + "\n")


def took_effect(name: str) -> None:
    note("effect", name)
    say("effect", name)


def noted(*words: object) -> int:
    lines = LEDGER.read_text().splitlines() if LEDGER.exists() else []
    return lines.count(" ".join(map(str, words)))


settings = load_settings()
beside = 0
all_beside, go = asyncio.Event(), asyncio.Event()


@asynccontextmanager
async def lifespan() -> AsyncIterator[None]:
    """A line on standard input lets the handlers go on that wait for it."""
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin.fileno(), go.set)
    yield
    loop.remove_reader(sys.stdin.fileno())


worker = Worker(f"{settings.broker.exchange}.w", settings=settings, lifespan=lifespan, listeners=[tell])


@worker.handler(Work, retry=Retry(attempts=4, backoff=fixed(0.1), max_crashes=3))
async def work(event: Work, ctx: Context) -> None:
    global beside  # noqa: PLW0603
    ran_before = noted("began", event.name)
    note("began", event.name)
    say("began", event.name)
    match event.does:
        case "wait":
            await go.wait()
        case "kill the process":
            if not ran_before:
                await all_beside.wait()
            os._exit(9)
        case "stay beside it" if not ran_before:
            beside += 1
            if beside == NEIGHBOURS:
                all_beside.set()
            await asyncio.Event().wait()
        case _:
            pass
    took_effect(event.name)


@worker.handler(First)
async def first(event: First, ctx: Context) -> None:
    await _pass_on(event.name, ctx, Second(name=event.name))


@worker.handler(Second)
async def second(event: Second, ctx: Context) -> None:
    await _pass_on(event.name, ctx, Third(name=event.name))


@worker.handler(Third)
async def third(event: Third) -> None:
    took_effect(event.name)


async def _pass_on(name: str, ctx: Context, further: Event) -> None:
    say("began", ctx.metadata.event_type, name)
    await ctx.publish(further)
    if noted("hold", ctx.metadata.event_type):
        await go.wait()
