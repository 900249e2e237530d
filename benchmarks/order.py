"""Order per key beside the same handler without it, and beside aio-pika with a lock per key; and changes of owner.

    python benchmarks/order.py [--count 30000] [--keys 10000] [--rounds 5] [--parked 10000] [--only TEXT]

Prints events a second and their ratios, measured in the same rounds; the speed of the other keys while 1 % of the keys
fails for ever; how long a key stands still when its owner is stopped or killed; and the same with a full ledger.
"""

import argparse
import asyncio
import json
import secrets
import signal
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from order_work import Job, Step, settings_of, words_of, worker_of

from holdfast import Publisher
from holdfast.broker import open_broker
from holdfast.consumer.ordering.asking import ask_owner
from holdfast.testing import servers

RATE = 100.0  # events a second while an owner is lost
KEYS = 20
SPAN = 25.0  # seconds that a key may stand still: a lease, and what comes on top
CHUNK = 2_000


async def declare(job: Job) -> None:
    """Declare the queues of a job."""
    broker = await open_broker(settings_of(job), lambda fact: None)
    try:
        await broker.declare(worker_of(job).topology())
    finally:
        await broker.close()


async def fill(job: Job, steps: list[Step]) -> None:
    """Publish events."""
    async with Publisher(settings_of(job)) as publisher:
        for begin in range(0, len(steps), CHUNK):
            await publisher.publish_many(steps[begin : begin + CHUNK])


async def speed_of(job: Job, steps: list[Step]) -> float:
    """Return the events a second of a process that handles all that do not fail."""
    await declare(job)
    await fill(job, steps)
    job = replace(job, count=sum(step.does == "return" for step in steps))
    process = await asyncio.create_subprocess_exec(*words_of(job), stdout=subprocess.PIPE)
    output, _ = await process.communicate()
    figures = json.loads(output)
    return float(figures["count"] / figures["seconds"])


async def speeds(new: Callable[[], Job], count: int, keys: int, rounds: int) -> None:
    """Measure the three ways to handle the same events, and the first one where 1 % of the keys fails for ever."""
    steps = [Step(key=f"k{number % keys}", number=number) for number in range(count)]
    sick = max(keys // 100, 1)
    failing = [step if step.number % keys >= sick else step.model_copy(update={"does": "fail"}) for step in steps]
    figures: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        figures["unordered"].append(await speed_of(replace(new(), how="unordered"), steps))
        figures["ordered"].append(await speed_of(new(), steps))
        figures["ordered, 1 % of the keys failing"].append(await speed_of(new(), failing))
        figures["aio-pika, a lock per key"].append(await speed_of(replace(new(), how="locks"), steps))
    for name, each in figures.items():
        print(f"{name:<34} {statistics.median(each):>8,.0f} events a second")
    ordered = figures["ordered"]
    print_ratio("ordered to unordered", ordered, figures["unordered"])
    print_ratio("ordered to a lock per key", ordered, figures["aio-pika, a lock per key"])
    print_ratio("1 % of the keys failing", figures["ordered, 1 % of the keys failing"], ordered)


def print_ratio(name: str, ours: list[float], theirs: list[float]) -> None:
    """Print the median of the ratios of each round."""
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    print(f"{name:<34} {statistics.median(ratios):>8.2f} ({', '.join(f'{ratio:.2f}' for ratio in ratios)})")


@dataclass(frozen=True, slots=True)
class Note:
    """An event that was handled: when, and by which process."""

    at: float
    pid: int
    key: str
    number: int


class Crew:
    """Two processes in line for one queue, and what they noted."""

    def __init__(self, job: Job) -> None:
        self.job = job
        Path(job.notes).touch()
        self.processes: list[asyncio.subprocess.Process] = []
        self.published = 0

    def notes(self) -> list[Note]:
        """Return the events that were handled."""
        lines = (line.split() for line in Path(self.job.notes).read_text().splitlines())
        return [Note(float(at), int(pid), key, int(number)) for at, pid, key, number in lines]

    async def start(self) -> None:
        """Start one more process."""
        self.processes.append(await asyncio.create_subprocess_exec(*words_of(self.job), stdout=subprocess.DEVNULL))

    async def publish(self, publisher: Publisher, seconds: float) -> None:
        """Publish events of some keys for a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await publisher.publish(Step(key=f"k{self.published % KEYS}", number=self.published))
            self.published += 1
            await asyncio.sleep(1 / RATE)

    async def until_handled(self) -> None:
        """Return once all that was published was handled."""
        while len({note.number for note in self.notes()}) < self.published:  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    def owner(self) -> asyncio.subprocess.Process:
        """Return the process that handled the last event."""
        pid = self.notes()[-1].pid
        return next(process for process in self.processes if process.pid == pid)

    async def lose(self, publisher: Publisher, how: signal.Signals) -> float:
        """Stop or kill the owner while events are published, and start another process. Returns when."""
        await self.publish(publisher, 2.0)
        owner, at = self.owner(), time.monotonic()
        owner.send_signal(how)
        self.processes.remove(owner)
        publishing = asyncio.create_task(self.publish(publisher, 3.0))
        await owner.wait()
        await self.start()
        await publishing
        await self.until_handled()
        return at


@asynccontextmanager
async def a_crew(job: Job, folder: str) -> AsyncIterator[tuple[Crew, Publisher]]:
    """Run two processes of a job, and a publisher."""
    crew = Crew(replace(job, notes=str(Path(folder) / job.name)))
    await declare(job)
    try:
        async with Publisher(settings_of(job)) as publisher:
            for _ in range(2):
                await crew.start()
            await crew.publish(publisher, 0.01)
            await crew.until_handled()
            yield crew, publisher
    finally:
        for process in crew.processes:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def hand_overs(new: Callable[[], Job], rounds: int, folder: str) -> None:
    """Print how long a key stands still when its owner is stopped, and when it is killed."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        gaps = list[float]()
        async with a_crew(new(), folder) as (crew, publisher):
            for _ in range(rounds):
                at = await crew.lose(publisher, how)
                gaps += gaps_of(crew.notes(), at)
        p50, p99 = (statistics.quantiles(gaps, n=100)[part - 1] for part in (50, 99))
        print(f"{f'a key stands still, {how.name}':<34} p50 {p50:.2f} s, p99 {p99:.2f} s, {rounds} owners")


def gaps_of(notes: list[Note], at: float) -> list[float]:
    """Return by how much more than usual each key stood still around a moment."""
    times: dict[str, list[float]] = defaultdict(list)
    for note in notes:
        if at - 1 <= note.at <= at + SPAN:
            times[note.key].append(note.at)
    usual = KEYS / RATE
    return [max(b - a for a, b in pairwise(each)) - usual for each in times.values() if each[1:]]


async def take_over(new: Callable[[], Job], parked: int, folder: str) -> None:
    """Print how long a new owner needs for a ledger with many events in it."""
    job = replace(new(), parked=2 * parked)
    keys = max(parked // 100, 1)
    steps = [
        Step(key=f"held{number % keys}", number=-1 - number, does="die" if number < keys else "return")
        for number in range(parked + keys)
    ]
    for how in (signal.SIGTERM, signal.SIGKILL):
        async with a_crew(replace(job, name=f"{job.name}-{how.name.lower()}"), folder) as (crew, publisher):
            await fill(crew.job, steps)
            waiting = 0
            while waiting < parked + keys:
                answer = await ask_owner(settings_of(crew.job), crew.job.name, "list")
                waiting = sum(one["waiting"] for one in answer["keys"])
            at = await crew.lose(publisher, how)
            notes = crew.notes()
            first = min(note.at for note in notes if note.at > at and note.pid != notes[0].pid)
        print(f"{f'take-over, {parked:,} parked, {how.name}':<34} {first - at:.2f} s")


async def main(options: argparse.Namespace) -> None:
    """Measure, and print the figures."""
    with (
        servers.rabbitmq_server() as rabbitmq,
        servers.redis_server() as redis,
        tempfile.TemporaryDirectory() as folder,
    ):

        def new() -> Job:
            return Job("ordered", rabbitmq.url, redis.url, f"order-{secrets.token_hex(4)}")

        if options.only in "speeds":
            await speeds(new, options.count, options.keys, options.rounds)
        if options.only in "hand-overs":
            await hand_overs(new, options.rounds, folder)
        if options.only in "take-over":
            await take_over(new, options.parked, folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=30_000, help="events of each round")
    parser.add_argument("--keys", type=int, default=10_000, help="keys that they have")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--parked", type=int, default=10_000, help="events in the ledger of the take-over")
    parser.add_argument("--only", default="", help="of speeds, hand-overs, take-over")
    asyncio.run(main(parser.parse_args()))
