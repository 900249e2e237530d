"""How many instructions of the processor a message costs, which other load on the machine does not change.

    python benchmarks/instructions.py [consume|headers|claims|followed|publish ...] [--uvloop] [--folder FOLDER]

Needs valgrind. Each path runs twice under `valgrind --tool=callgrind`, with few messages and with more, and the
difference is printed: thousands of instructions a message. The paths begin with the bytes that a socket gave and end
with those that are written to it; everything is on, but for the socket, and for claims the server. `consume` are
messages as any program publishes them, `headers` are Holdfast's; `followed` are `claims` that each belong to a followed
request.
"""

import argparse
import asyncio
import gc
import os
import pickle
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from stages import Nowhere, OnTheWire, Order, from_the_socket

from holdfast import Context, Publisher, Settings, Worker
from holdfast.broker import REAL
from holdfast.broker.amqp.confirms import PublishChannel
from holdfast.broker.amqp.publisher import AmqpPublisher
from holdfast.broker.amqp.splitter import Splitter
from holdfast.broker.codec import pack
from holdfast.config import IdempotencySettings
from holdfast.consumer.claims import HandlerClaims, Unclaimed
from holdfast.consumer.context import Surroundings
from holdfast.consumer.dependencies import Tools
from holdfast.consumer.following import Follower
from holdfast.consumer.pipeline import Pipeline
from holdfast.consumer.run import compose
from holdfast.consumer.slots import Slots
from holdfast.events import Message, headers, seal, to_message
from holdfast.idempotency import Boards, WorkerClaims, no_claims
from holdfast.idempotency.redis import lua
from holdfast.idempotency.redis.batches import Batches, Group
from holdfast.idempotency.redis.board import RedisBoard
from holdfast.idempotency.redis.store import RedisClaims
from holdfast.telemetry import FactLog, Metrics, Spans, Started, fan_out

FEW, MORE = 500, 1_500
AT_ONCE = 100
SETTINGS = Settings(_env_file=None)  # type: ignore[call-arg]
PATHS = ("consume", "headers", "claims", "followed", "publish")
CLAIMED = ("claims", "followed")


def deliveries(path: str, count: int) -> list[bytes]:
    """Return deliveries as the broker sends them: with headers of Holdfast's, or as any program publishes them."""
    frames = []
    for number in range(count):
        event = seal(Order(number=number, note="x" * 250), source="shop")
        message = to_message(event, exchange="events")
        if path == "consume":
            message = Message(event.body, "", "w.handle", {}, message.message_id, "order", "application/json")
        elif path == "followed":
            message = replace(message, headers={**message.headers, headers.FOLLOW: message.message_id})
        frames.append(from_the_socket(number + 1, 1, pack(message)))
    return [b"".join(frames[first : first + AT_ONCE]) for first in range(0, count, AT_ONCE)]


def own_store() -> RedisClaims:
    """Return claims in Redis, up to the pipeline that goes to a server."""
    store = RedisClaims("redis://localhost", IdempotencySettings())
    store._batches = Batches(agree)
    return store


async def agree(groups: Sequence[Group], full: bool) -> list[Any]:
    """Answer as a store does that agrees to whatever it is asked."""
    await asyncio.sleep(0)
    return [[0 if group.script is lua.CLAIM else 1] * len(group.keys) for group in groups]


async def consume(path: str, reads: Sequence[bytes]) -> None:
    metrics = Metrics()
    metrics(Started("w", ("w.handle",), 1, ("order",)))
    emit = fan_out((FactLog(0), Spans(), metrics))
    spans, opened = Spans(), no_claims()
    if path in CLAIMED:
        opened = replace(opened, store=own_store())
    store = WorkerClaims(opened, prefix="w", clock=REAL, luck=random.random, emit=emit)
    worker = Worker("w")

    async def handle(event: Order, ctx: Context) -> None: ...

    worker.handler(Order)(handle)
    [spec] = worker.selected()
    around = Surroundings("w.handle", "handle", "w", None, SETTINGS, store.lease, spans)
    tools = Tools(None, store, REAL, random.random, emit, spans)  # type: ignore[arg-type]
    claims = HandlerClaims(spec, store, SETTINGS, emit) if path in CLAIMED else Unclaimed()
    board = RedisBoard(Batches(agree), "w", is_beside_claims=True)
    boards = Boards(board, "events", REAL, emit) if path == "followed" else None
    pipeline = Pipeline(
        spec,
        compose(spec, (), None),
        around,
        tools,
        claims,
        Follower(boards, spec.queue, REAL),
        cancel_grace=5,
        prefetch=2 * AT_ONCE,
    )  # type: ignore[arg-type]
    wire, splitter = OnTheWire(pipeline, Slots(64)), Splitter(lambda data: None)
    splitter.tap(1, wire.deliveries)
    for read in reads:
        splitter.feed(read)
        while pipeline.in_flight:  # noqa: ASYNC110 (to wait for tasks costs instructions for each of them)
            await asyncio.sleep(0)


class Confirming(Nowhere):
    """A transport whose broker confirms what was written, with the next turn of the loop."""

    def __init__(self, splitter: Splitter) -> None:
        self._splitter, self._tag = splitter, 0

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: bytes) -> None:
        self._tag += data.count(b"\x00\x3c\x00\x28\x00\x00")
        asyncio.get_running_loop().call_soon(self._confirm, self._tag)

    def _confirm(self, tag: int) -> None:
        method = b"\x00\x3c\x00\x50" + tag.to_bytes(8) + b"\x01"
        self._splitter.feed(b"\x01\x00\x01" + len(method).to_bytes(4) + method + b"\xce")


async def publish(count: int) -> None:
    splitter, loop = Splitter(lambda data: None), asyncio.get_running_loop()
    wire = SimpleNamespace(splitter=splitter, transport=Confirming(splitter))
    channel = SimpleNamespace(below=SimpleNamespace(number=1), wire=wire, closing=loop.create_future())
    link: Any = SimpleNamespace(connected=True, header_budget=126_976, last_error="")
    below = AmqpPublisher(link, lambda fact: None)
    below._open["events", ""] = PublishChannel(channel, 131_072)  # type: ignore[arg-type]
    publisher = Publisher(SETTINGS)
    publisher._broker = SimpleNamespace(publish=lambda message, *, timeout: below.publish(message, timeout))  # type: ignore[assignment]
    numbers = iter(range(count))

    async def one_by_one() -> None:
        for number in numbers:
            await publisher.publish(Order(number=number, note="x" * 250))

    await asyncio.gather(*(one_by_one() for _ in range(AT_ONCE)))


def run(path: str, file: Path, is_uvloop: bool) -> None:
    """Run a path in this process, with what `prepare` wrote into a file."""
    given = pickle.loads(file.read_bytes())
    gc.collect()
    main = publish(given) if path == "publish" else consume(path, given)
    if is_uvloop:
        import uvloop

        uvloop.run(main)
    else:
        asyncio.run(main)


def measure(path: str, options: Sequence[str], folder: Path) -> float:
    """Return how many thousand instructions a message costs on a path."""
    totals = []
    for count in (FEW, MORE):
        file = folder / f"{path}.{count}"
        file.write_bytes(pickle.dumps(count if path == "publish" else deliveries(path, count)))
        tool = ("valgrind", "--tool=callgrind", f"--callgrind-out-file={folder / file.name}.out")
        program = (*tool, sys.executable, __file__, path, "--file", str(file), *options)
        ended = subprocess.run(
            program, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONHASHSEED": "0"}
        )
        counted = re.search(r"Collected : (\d+)", ended.stderr)
        if ended.returncode or counted is None:
            raise SystemExit(ended.stderr[-2_000:])
        totals.append(int(counted[1]))
    return (totals[1] - totals[0]) / (MORE - FEW) / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", choices=[*PATHS, []], help="by default all of them")
    parser.add_argument("--uvloop", action="store_true", help="on uvloop, not on the loop of asyncio")
    parser.add_argument("--folder", type=Path, help="keep what callgrind wrote, for `callgrind_annotate`")
    parser.add_argument("--once", action="store_true", help="run each path once with few messages, and count nothing")
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.file is not None:
        run(options.paths[0], options.file, options.uvloop)
        return
    if options.once:
        for path in options.paths or PATHS:
            asyncio.run(publish(AT_ONCE) if path == "publish" else consume(path, deliveries(path, AT_ONCE)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        for path in options.paths or PATHS:
            folder = options.folder or Path(temporary)
            thousands = measure(path, ["--uvloop"] * options.uvloop, folder)
            print(f"{path:8} {thousands:7.1f} thousand instructions a message", flush=True)


if __name__ == "__main__":
    main()
