"""The system-wide tape on RabbitMQ: recorded and fed by processes that are killed, while events are published."""

import asyncio
import json
import signal
import socket
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import aio_pika
import pytest
from apps import copy_app
from commands import Running, environment, holdfast
from keeping import KeptFile
from running import a_broker, a_worker, running
from scraping import Site
from waiting import LIMIT, Arrivals, Facts, eventually

from holdfast import Context, Event, Settings
from holdfast.broker import REAL, Broker, Queue, Topology, events_topology
from holdfast.journal import Recorder
from holdfast.telemetry import TapeGap


class Placed(Event, type="feed.placed", key="order"):
    order: str
    number: int


class Other(Event, type="feed.other"):
    number: int


@pytest.fixture
def taped(settings: Settings, unique: str) -> Settings:
    """Settings with a stream, and a database that keeps its events."""
    return settings.model_copy(
        update={
            "broker": settings.broker.model_copy(update={"stream": f"{unique}.tape"}),
            "sql": settings.sql.model_copy(update={"keep": float("inf")}),
        }
    )


def variables(settings: Settings, path: Path, **more: str) -> dict[str, str]:
    """The environment of commands."""
    broker = settings.broker
    return environment(
        HOLDFAST_BROKER__URL=broker.url.get_secret_value(), HOLDFAST_BROKER__EXCHANGE=broker.exchange,
        HOLDFAST_BROKER__STREAM=broker.stream or "", HOLDFAST_BROKER__MAX_DELAY=f"{broker.max_delay:g}",
        HOLDFAST_IDEMPOTENCY__URL="memory://", HOLDFAST_SQL__URL=f"sqlite:///{path}", HOLDFAST_SQL__KEEP="forever",
        HOLDFAST_LOG__FORMAT="json", **more,
    )  # fmt: skip


class Publishing:
    """Events that a program commits, and that a relay sends at full rate."""

    def __init__(self, kept: KeptFile) -> None:
        self.kept = kept
        self.over = asyncio.Event()
        self._numbers = iter(range(1_000_000))

    async def some(self, times: int) -> None:
        for _ in range(times):
            await asyncio.to_thread(self._commit)
        await self.kept.relay()

    async def _go_on(self) -> None:
        while not self.over.is_set():
            await self.some(5)

    def _commit(self) -> None:
        numbers = list(islice(self._numbers, 20))
        self.kept.publish(*(Placed(order=f"o-{n % 7}", number=n) for n in numbers), Other(number=numbers[0]))

    @asynccontextmanager
    async def at_full_rate(self) -> AsyncIterator[None]:
        publishing = asyncio.create_task(self._go_on())
        try:
            yield
        finally:
            self.over.set()
            await publishing

    async def written(self, kind: str = "%") -> list[str]:
        rows = await self.kept.ask(
            f"select e.event_id from holdfast_events e where e.event_type like '{kind}' order by e.seq"
        )
        return [row[0] for row in rows]


@pytest.fixture
async def publishing(taped: Settings, tmp_path: Path) -> AsyncIterator[Publishing]:
    async with a_broker(taped) as broker:
        await broker.declare(events_topology(taped.broker))
        yield Publishing(KeptFile(tmp_path / "shop.db", taped, broker))


async def test_a_recorder_that_is_killed_again_and_again_writes_each_event_once(
    taped: Settings, publishing: Publishing, tmp_path: Path
) -> None:
    env = variables(taped, tmp_path / "tape.db")
    tape = KeptFile(tmp_path / "tape.db", taped)

    async def recorded() -> int:
        return int((await tape.ask("select count(*) from holdfast_positions"))[0][0])

    async with publishing.at_full_rate():
        for _ in range(4):
            before = await recorded()

            async def has_more(before: int = before) -> bool:
                return await recorded() > before + 200

            await killed_once(has_more, "journal", "record", folder=tmp_path, env=env)
    done = await asyncio.to_thread(holdfast, "journal", "record", "--once", folder=tmp_path, env=env)
    again = await asyncio.to_thread(holdfast, "journal", "record", "--once", folder=tmp_path, env=env)
    anew = await asyncio.to_thread(holdfast, "journal", "record", "--once", "--from-first", folder=tmp_path, env=env)

    rows = await tape.ask(
        "select p.position, e.event_id, e.key, e.body from holdfast_positions p join holdfast_events e using (seq) "
        "order by p.position"
    )
    assert done.returncode == 0, done.stderr
    assert again.stdout == f"0 event(s) of {taped.broker.stream} are written\n", again.stderr
    assert anew.stdout == again.stdout, anew.stderr
    assert [position for position, *_ in rows] == list(range(1, len(rows) + 1))
    assert sorted(event_id for _, event_id, *_ in rows) == sorted(await publishing.written())
    by_key = defaultdict[str, list[int]](list)
    for _, _, key, body in rows:
        by_key[key].append(json.loads(body)["number"])
    assert all(numbers == sorted(numbers) for key, numbers in by_key.items() if key)
    assert len(rows) > 800


@pytest.mark.parametrize("source", ["journal", "stream"])
async def test_a_listener_fed_by_processes_that_are_killed_handles_each_event_once(
    taped: Settings, publishing: Publishing, unique: str, tmp_path: Path, source: str
) -> None:
    seen, facts = Arrivals[int](), Facts()
    copy_app("taped_app", tmp_path)
    env = variables(taped, publishing.kept.path, HOLDFAST_TEST_NAME=f"{unique}.w")
    feed = ("journal", "feed", "app:worker", "charge", *(("--from-stream",) if source == "stream" else ()))
    worker = a_worker(taped, facts)

    @worker.handler(Placed)
    async def charge(event: Placed, ctx: Context) -> None:
        seen(event.number)

    [spec] = worker.handlers
    await publishing.some(100)
    async with a_broker(taped) as watching, publishing.at_full_rate():
        for ready in (1, 700):
            await killed_once(partial(is_ready, watching, spec.queue, ready), *feed, folder=tmp_path, env=env)
        done = await asyncio.to_thread(holdfast, *feed, folder=tmp_path, env=env)
    await publishing.kept.relay()
    placed = await publishing.written("feed.placed")
    async with running(worker):
        await seen.until_true(lambda: len(seen.all) >= len(placed), lambda: f"{len(seen.all)} of {len(placed)}")

    assert done.returncode == 0, done.stderr
    assert f"fed to {spec.queue}" in done.stdout
    assert sorted(seen.all) == list(range(len(placed)))
    assert len(placed) > 2_000


async def is_ready(broker: Broker, queue: str, messages: int) -> bool:
    """Whether so many messages are in a queue."""
    depth = await broker.count(queue)
    return depth is not None and depth.ready >= messages


async def killed_once(is_time: Callable[[], Awaitable[bool]], *command: str, folder: Path, env: dict[str, str]) -> None:
    """Run a command, and kill its process once it is time."""
    with Running(*command, folder=folder, env=env) as running:
        await eventually(is_time)
        running.process.kill()
        assert await asyncio.to_thread(running.process.wait) == -signal.SIGKILL, running.log


async def test_what_the_retention_deleted_before_it_was_recorded_is_said(taped: Settings, tmp_path: Path) -> None:
    facts, stream = Facts(), taped.broker.stream or ""
    small = {"x-max-length-bytes": 200_000, "x-stream-max-segment-size-bytes": 50_000}
    tape = KeptFile(tmp_path / "tape.db", taped)

    async with a_broker(taped) as broker:
        await broker.declare(Topology(queues=(Queue(stream, {"x-queue-type": "stream", **small}),)))
        recorder = Recorder(tape.database, broker, taped, emit=facts.record, clock=REAL)
        await fill(taped, stream, range(3))
        written = await recorder.catch_up()
        await fill(taped, stream, range(3, 120))
        await eventually(lambda: first_offset(taped, stream), True)
        again = await recorder.catch_up()

    [gap] = facts.of(TapeGap)  # none for the offsets of what RabbitMQ writes at each beginning of a segment
    assert written == 3
    assert gap.first == 4
    assert gap.last - gap.first + 1 >= 117 - again > 0


async def fill(settings: Settings, stream: str, numbers: range) -> None:
    async with await aio_pika.connect(settings.broker.url.get_secret_value()) as connection:
        channel = await connection.channel()
        for number in numbers:
            message = aio_pika.Message(bytes(10_000), message_id=f"m-{number}", type="large")
            await channel.default_exchange.publish(message, stream)


async def first_offset(settings: Settings, stream: str) -> bool:
    """Whether the stream has lost its first messages."""
    from holdfast.broker import scanning

    async with a_broker(settings) as broker, scanning(broker, stream, "first") as scan:
        return (await scan.read(1))[0].offset > 4


async def test_the_commands_know_the_stream(taped: Settings, unique: str, tmp_path: Path) -> None:
    copy_app("taped_app", tmp_path)
    env = variables(taped, tmp_path / "shop.db", HOLDFAST_TEST_NAME=f"{unique}.w")

    def run(*arguments: str, **more: str) -> Any:
        return holdfast(*arguments, folder=tmp_path, env=env | more)

    missing = await asyncio.to_thread(run, "topology", "diff", "app:worker")
    shown = await asyncio.to_thread(run, "topology", "show", "app:worker")
    applied = await asyncio.to_thread(run, "topology", "apply", "app:worker")
    same = await asyncio.to_thread(run, "topology", "diff", "app:worker")
    drift = await asyncio.to_thread(run, "topology", "diff", "app:worker", HOLDFAST_BROKER__STREAM_AGE="60")

    stream = taped.broker.stream
    assert f"missing: there is no queue {stream}" in missing.stdout
    assert f"queue {stream} x-queue-type=stream, x-max-age=2592000s, x-max-length-bytes=20000000000" in shown.stdout
    assert f"binding of queue {stream} to {unique} for #" in shown.stdout
    assert (applied.returncode, same.returncode) == (0, 0), applied.stderr + same.stdout
    assert drift.returncode == 1 and f"queue '{stream}' exists with x-max-age" in drift.stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_before_all_is_recorded_once_is_a_failure(
    taped: Settings, tmp_path: Path, number: signal.Signals
) -> None:
    KeptFile(tmp_path / "tape.db", taped)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(LIMIT)
        url = f"amqp://127.0.0.1:{silent.getsockname()[1]}/"
        env = variables(taped, tmp_path / "tape.db") | {"HOLDFAST_BROKER__URL": url}

        with Running("journal", "record", "--once", folder=tmp_path, env=env) as recording:
            connection, _ = await asyncio.to_thread(silent.accept)
            code = await asyncio.to_thread(recording.stop, number)
        connection.close()

    assert code == 1
    assert recording.log == "holdfast: stopped before all was recorded; another run goes on from there\n"


@pytest.mark.parametrize("command", [("relay",), ("journal", "record")])
async def test_a_command_that_runs_until_a_signal_is_live_while_its_loop_turns(
    taped: Settings, tmp_path: Path, command: tuple[str, ...]
) -> None:
    KeptFile(tmp_path / "tape.db", taped)

    with Running(*command, folder=tmp_path, env=variables(taped, tmp_path / "tape.db")) as running:
        await asyncio.to_thread(running.until, lambda log: "http.serving" in log)
        [url] = [json.loads(line)["url"] for line in running.log.splitlines() if "http.serving" in line]
        status, told = await Site(url).live()
        code = await asyncio.to_thread(running.stop)

    assert (status, code) == (200, 0)
    assert told["live"] is True and told["still"] < 10


def test_a_stream_that_no_command_can_read_is_refused(tmp_path: Path, unique: str) -> None:
    copy_app("taped_app", tmp_path)
    env = environment(
        HOLDFAST_BROKER__URL="memory://",
        HOLDFAST_SQL__URL=f"sqlite:///{tmp_path / 'x.db'}",
        HOLDFAST_SQL__KEEP="forever",
        HOLDFAST_TEST_NAME=unique,
    )
    feed = ("journal", "feed", "app:worker", "charge", "--from-stream")

    without = [holdfast(*command, folder=tmp_path, env=env).stderr for command in (("journal", "record"), feed)]
    env["HOLDFAST_BROKER__STREAM"] = "tape"
    in_memory = [holdfast(*command, folder=tmp_path, env=env).stderr for command in (("journal", "record"), feed)]

    assert without == ["holdfast: HOLDFAST_BROKER__STREAM is not set: which stream?\n"] * 2
    assert [line.count("a broker inside one process") for line in in_memory] == [1, 1]
