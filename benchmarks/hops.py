"""Which functions of Holdfast a message passes through, in order: `make hops`.

    python benchmarks/hops.py [--counts]

A real worker on a real RabbitMQ and Redis handles one message at a time while `sys.setprofile` notes each function of
the product that is entered, from the frames on the socket to the ack on it. Metrics are on; log lines of successes are
off, as they are for most messages of a busy worker. A function is indented below the one that called it. Each path is
run several times, and the shortest is shown: what else the process did meanwhile (heartbeats, ticks) is not in it.
The making of a value counts for nothing, whether its class or `dataclass` wrote its `__init__`.
"""

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, TypeAlias

import aiormq

import holdfast
from holdfast import Event, Publisher, Retry, Settings, Worker, fixed
from holdfast.consumer import Dependencies
from holdfast.events import seal, to_message, uuid7
from holdfast.telemetry import Attached, Fact, Settled
from holdfast.testing import servers

PACKAGE = str(Path(holdfast.__file__).parent) + "/"
RUNS = 7

Act: TypeAlias = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Entry:
    """One function that was entered: its file below the package, its name, its line, and how deep it was called."""

    file: str
    function: str
    line: int
    depth: int


@dataclass(frozen=True, slots=True)
class Passage:
    """The functions that one message entered, in order."""

    name: str
    entries: tuple[Entry, ...]

    @property
    def functions(self) -> int:
        """How many times a function was entered."""
        return len(self.entries)

    @property
    def files(self) -> int:
        """How many files these functions are in."""
        return len({entry.file for entry in self.entries})


class Hop(Event, type="hop"):
    number: int
    note: str


class Landing(Event, type="landing"):
    number: int
    note: str


class Trace:
    """Notes each function of the package that is entered. A coroutine that goes on is not entered again."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._frames: dict[int, FrameType] = {}  # kept, so that no other frame gets the number of one that was seen

    def __enter__(self) -> "Trace":
        sys.setprofile(self._note)
        return self

    def __exit__(self, *failure: object) -> None:
        sys.setprofile(None)
        self._frames.clear()

    def _note(self, frame: FrameType, event: str, _: Any) -> None:
        if event != "call" or not frame.f_code.co_filename.startswith(PACKAGE) or id(frame) in self._frames:
            return
        self._frames[id(frame)] = frame
        code = frame.f_code
        if code.co_name == "__init__":
            return
        file = code.co_filename.removeprefix(PACKAGE)
        self.entries.append(Entry(file, code.co_qualname, code.co_firstlineno, _depth(frame.f_back)))


def _depth(frame: FrameType | None) -> int:
    depth = 0
    while frame is not None:
        depth += frame.f_code.co_filename.startswith(PACKAGE)
        frame = frame.f_back
    return depth


async def measure(rabbitmq: str, redis: str) -> list[Passage]:
    """Return the passages of a message that is handled, of one that is to be retried, and of an event published."""
    name = f"hops-{uuid7()[-8:]}"  # a queue that no other run consumes, and no number that is looked at as a card's
    settings = Settings(
        _env_file=None,  # type: ignore[call-arg]
        broker={"url": rabbitmq, "exchange": name},  # type: ignore[arg-type]
        idempotency={"url": redis},  # type: ignore[arg-type]
        log={"successes": 0},  # type: ignore[arg-type]
        http={"port": 0},  # type: ignore[arg-type]
    )
    settled: asyncio.Queue[Settled] = asyncio.Queue()

    attached = asyncio.Event()

    def note(fact: Fact) -> None:
        if isinstance(fact, Settled):
            settled.put_nowait(fact)
        elif isinstance(fact, Attached):
            attached.set()

    worker = Worker(name, settings=settings, listeners=[note])

    @worker.handler(Hop, retry=Retry(attempts=3, backoff=fixed(1000)))
    async def handle(event: Hop) -> None:
        if event.number < 0:
            raise RuntimeError("to be tried again")

    running = asyncio.create_task(worker.run(dependencies=Dependencies(luck=lambda: 0.6)))  # the most levels of a delay
    connection = await aiormq.connect(rabbitmq)
    channel = await connection.channel()
    try:
        await attached.wait()

        def prepared(number: int) -> Act:
            """Have an event that another process published handled."""
            message = to_message(seal(Hop(number=number, note="x" * 250), source="hops"), exchange=name)
            properties = aiormq.spec.Basic.Properties(
                content_type=message.content_type, message_type=message.type, message_id=message.message_id,
                delivery_mode=2, app_id=message.app_id, headers=message.headers, timestamp=message.timestamp,
            )  # fmt: skip

            async def deliver() -> None:
                await channel.basic_publish(message.body, exchange=name, routing_key="hop", properties=properties)
                await settled.get()
                await channel.queue_declare(f"{name}.handle", passive=True)  # the ack is on its way by now

            return deliver

        await channel.queue_declare(f"{name}.landing", exclusive=True)
        await channel.queue_bind(f"{name}.landing", name, "landing")
        async with Publisher(settings) as publisher:
            landing = Landing(number=1, note="x" * 250)
            return [
                await _shortest("a message handled", lambda: prepared(1)),
                await _shortest("a message to be tried again", lambda: prepared(-1)),
                await _shortest("an event published", lambda: lambda: publisher.publish(landing)),
            ]
    finally:
        worker.stop()
        await running
        for queue in (f"{name}.handle", f"{name}.handle.dead"):
            await channel.queue_delete(queue)
        await channel.exchange_delete(name)
        await connection.close()


async def _shortest(name: str, prepare: Callable[[], Act]) -> Passage:
    await prepare()()  # what is made on first use is made
    passages: list[Passage] = []
    for _ in range(RUNS):
        act = prepare()
        with Trace() as trace:
            await act()
        passages.append(Passage(name, tuple(trace.entries)))
    return min(passages, key=lambda passage: passage.functions)


@contextmanager
def _servers() -> Iterator[tuple[str, str]]:
    with ExitStack() as stack:
        yield stack.enter_context(servers.rabbitmq_server()).url, stack.enter_context(servers.redis_server()).url


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", action="store_true", help="only the counts, not the functions")
    options = parser.parse_args()
    with _servers() as (rabbitmq, redis):
        for passage in asyncio.run(measure(rabbitmq, redis)):
            print(f"{passage.name}: {passage.functions} functions in {passage.files} files")
            for number, entry in enumerate(() if options.counts else passage.entries, 1):
                print(f"{number:5}  {'  ' * entry.depth}{entry.function}  {entry.file}:{entry.line}")


if __name__ == "__main__":
    main()
