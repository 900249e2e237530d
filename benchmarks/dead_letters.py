"""A queue full of dead letters: how long its listing and filters take, how much memory, and whether it is as it was.

    python benchmarks/dead_letters.py amqp://guest:guest@localhost:5672/ 100000 [seconds of CPU a listing may take]

Each command is a process of its own, as an operator starts it. At the end the queue is emptied by a consumer that knows
nothing of Holdfast, and what it gets is compared with what was published, in order. Exits 1 where a limit is passed.
"""

import asyncio
import hashlib
import os
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiormq
from aiormq.abc import DeliveredMessage

from holdfast import Settings
from holdfast.broker import Topology, open_broker, resting_queue
from holdfast.events import Message

SECONDS, MEGABYTES = 1.0, 300
"""What a listing may take of a processor once the queue was read, beside the start of the command; and any command of
memory."""

TRACEBACK = "Traceback (most recent call last):\n" + "".join(
    f'  File "/app/shop/charging.py", line {n}, in step_{n}\n    await step_{n + 1}(order)\n' for n in range(12)
)
GROUPS, AT_ONCE = 10, 400


def letters(queue: str, count: int) -> Iterator[Message]:
    """Dead letters as a worker leaves them, of ten kinds."""
    born = datetime.now(UTC) - timedelta(seconds=count)
    for n in range(count):
        kind, died = n % GROUPS, (born + timedelta(seconds=n)).isoformat()
        headers = {
            "event-id": str(uuid.uuid4()),
            "event-time": died,
            "holdfast-reason": "refused" if kind == 3 else "exhausted",
            "holdfast-error-type": f"shop.Fault{kind}",
            "holdfast-error-message": f"order {n} cannot be charged",
            "holdfast-traceback": f"{TRACEBACK}shop.Fault{kind}: order {n} cannot be charged\n",
            "holdfast-fingerprint": hashlib.blake2b(bytes([kind]), digest_size=8).hexdigest(),
            "holdfast-handler": "charge",
            "holdfast-attempt": 5,
            "holdfast-queue": queue.removesuffix(".dead"),
            "holdfast-failed-at": died,
            "holdfast-worker": "host-1 holdfast/1.0",
        }
        body = b'{"order_id":"o-%d","customer_id":"c-%d","total":"12.50","lines":["%s"]}' % (n, n % 97, b"x" * 200)
        yield Message(body, "", queue, headers, message_id=uuid.uuid4().hex, type="order.created", app_id="shop")


class Digest:
    """Of messages in order: their bodies, ids and headers, but for what RabbitMQ counts in them."""

    def __init__(self) -> None:
        self.count = 0
        self._hash = hashlib.sha256()

    def add(self, message_id: str, headers: dict[str, object], body: bytes) -> None:
        counted = sorted((name, value) for name, value in headers.items() if not name.startswith("x-"))
        self._hash.update(repr((message_id, counted, body)).encode())
        self.count += 1

    def __str__(self) -> str:
        return f"{self.count} messages, {self._hash.hexdigest()[:16]}"


async def fill(url: str, queue: str, count: int) -> Digest:
    digest = Digest()
    broker = await open_broker(Settings(_env_file=None, broker={"url": url}), lambda fact: None)
    await broker.declare(Topology(queues=(resting_queue(queue),)))
    batch: list[Message] = []
    for message in letters(queue, count):
        digest.add(message.message_id or "", dict(message.headers), message.body)
        batch.append(message)
        if len(batch) == AT_ONCE:
            await asyncio.gather(*(broker.publish(one, timeout=60) for one in batch))
            batch.clear()
    await asyncio.gather(*(broker.publish(one, timeout=60) for one in batch))
    await broker.close()
    return digest


async def empty(url: str, queue: str, count: int) -> Digest:
    """Take everything, and delete the queue."""
    digest, done = Digest(), asyncio.Event()
    connection = await aiormq.connect(url)
    channel = await connection.channel()

    async def take(delivered: DeliveredMessage) -> None:
        properties = delivered.header.properties
        digest.add(properties.message_id or "", dict(properties.headers or {}), delivered.body)
        if digest.count % AT_ONCE == 0 or digest.count == count:
            await channel.basic_ack(delivered.delivery_tag or 0, multiple=True)
        if digest.count == count:
            done.set()

    await channel.basic_qos(prefetch_count=2 * AT_ONCE)
    await channel.basic_consume(queue, take)
    async with asyncio.timeout(60 + count / 500):
        await done.wait()
    await channel.queue_delete(queue)
    await connection.close()
    return digest


def timed(arguments: tuple[str, ...], environment: dict[str, str], output: Path) -> tuple[float, float, int, int]:
    """Run `holdfast dead ...`, its words going to a file; returns seconds, seconds of CPU, megabytes at most, and the
    exit code."""
    began = time.perf_counter()
    with output.open("w") as file:
        actions = [(os.POSIX_SPAWN_DUP2, file.fileno(), 1)]
        command = [sys.executable, "-m", "holdfast", "dead", *arguments]
        pid = os.posix_spawn(sys.executable, command, environment, file_actions=actions)
        _, status, used = os.wait4(pid, 0)
    busy = used.ru_utime + used.ru_stime
    return time.perf_counter() - began, busy, used.ru_maxrss // 1024, os.waitstatus_to_exitcode(status)


def main(url: str, count: int, limit: float) -> int:
    queue = f"bench.{uuid.uuid4().hex[:8]}.charge.dead"
    began = time.perf_counter()
    before = asyncio.run(fill(url, queue, count))
    print(f"{count:,} letters published to {queue} in {time.perf_counter() - began:.0f} s\n")
    kind = hashlib.blake2b(bytes([3]), digest_size=8).hexdigest()
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        environment = dict(os.environ) | {
            "HOLDFAST_BROKER__URL": url,
            "HOLDFAST_DEAD_LETTERS__FOLDER": folder,
        }
        listing = (
            ("show", queue, "--cached"),
            ("show", queue, "--cached", "--fingerprint", kind),
            ("show", queue, "--cached", "--reason", "refused", "--since", "10h"),
            ("show", queue, "--cached", "--text", "ORDER 77"),
            ("show", queue, "--cached", "--type", "order.created", "--limit", "50", "--json"),
            ("list", queue),
        )
        others = (
            ("show", queue, "--cached", "--limit", str(count), "--json"),
            ("replay", queue, "--dry-run"),
            ("export", queue, str(Path(folder) / "all.ndjson")),
        )
        _, start, _, _ = timed(("operations",), environment, Path(folder) / "output")
        print(f"{start:.2f} s of CPU to start, connect and end\n")
        for arguments in (("show", queue), *listing, *others):
            output = Path(folder) / "output"
            seconds, busy, megabytes, code = timed(arguments, environment, output)
            words = " ".join(arguments).replace(queue, "QUEUE").replace(folder, "")
            print(f"{seconds:7.2f} s {busy:6.2f} s CPU {megabytes:5d} MB  holdfast dead {words}")
            faults += [f"{words}: exit code {code}"] if code else []
            told = output.read_text()
            if len(arguments) < 4 and arguments[0] != "list" and f"{count:,} letter(s)" not in told:
                faults.append(f"{words}: not {count:,} letters, but {told[:80]}")
            over = arguments in listing and busy - start > limit
            faults += [f"{words}: more than {limit} s of CPU beside the start"] if over else []
            faults += [f"{words}: more than {MEGABYTES} MB"] if megabytes > MEGABYTES else []
    after = asyncio.run(empty(url, queue, count))
    print(f"\npublished: {before}\ntaken out: {after}")
    faults += [] if str(before) == str(after) else ["the queue is not as it was"]
    for fault in faults:
        print(f"FAULT {fault}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]) if len(sys.argv) > 3 else SECONDS))
