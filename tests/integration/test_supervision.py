"""`holdfast run --processes`: several processes that look like one, whatever happens to them."""

import asyncio
import json
import os
import secrets
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
from apps import copy_app
from commands import Running, ended, environment, holdfast
from running import depth, settings_for
from scraping import Figures, Site, figure, total
from waiting import eventually

from holdfast import Publisher, Settings
from holdfast.cli.processes.child_process import ChildProcess
from holdfast.cli.processes.parent import Supervisor
from holdfast.cli.processes.protocol import Assignment
from holdfast.events import Envelope, Metadata, uuid7
from holdfast.idempotency import open_heart


class Crew:
    """A running `holdfast run --processes N`: what it logs, what its handlers noted, what it serves."""

    def __init__(self, running: Running, folder: Path, settings: Settings) -> None:
        self.running = running
        self._folder = folder
        self._settings = settings

    def lines(self, event: str, **fields: object) -> list[dict[str, Any]]:
        log = self.running.log.splitlines()
        told = [json.loads(line) for line in log if line.startswith("{") and line.endswith("}")]
        return [line for line in told if line["event"] == event and fields.items() <= line.items()]

    async def until_ready(self) -> Site:
        await self.until(lambda: len(self.lines("http.serving")) == 1)
        site = Site(self.lines("http.serving")[0]["url"])
        await eventually(site.is_ready, True)
        return site

    async def until(self, condition: Any) -> None:
        """Wait for lines of the log."""
        await asyncio.to_thread(self.running.until, lambda log: condition())

    async def until_noted(self, condition: Callable[[], bool]) -> None:
        """Wait for lines of the ledger, a file."""
        await eventually(condition)

    @property
    def pids(self) -> dict[int, int]:
        """The processes by number, the newest of each."""
        return {line["number"]: line["pid"] for line in self.lines("process.started")}

    def ledger(self, word: str) -> Counter[str]:
        path = self._folder / "ledger"
        lines = path.read_text().splitlines() if path.exists() else []
        return Counter(line.split()[1] for line in lines if line.startswith(word))

    def let_go(self) -> None:
        (self._folder / "go").touch()

    async def publish(self, *orders: str, does: str = "return") -> None:
        name = self._settings.broker.exchange
        async with Publisher(self._settings) as publisher:
            bodies = [json.dumps({"order": order, "does": does}).encode() for order in orders]
            told = await publisher.publish_many(
                Envelope(Metadata(uuid7(), f"{name}.paid", datetime.now().astimezone()), body) for body in bodies
            )
        assert not [result for result in told if isinstance(result, Exception)]


@pytest.fixture
def folder(tmp_path: Path, unique: str) -> Path:
    copy_app("crew", tmp_path, NAME=unique)
    return tmp_path


@pytest.fixture
def env(settings: Settings, redis_url: str) -> dict[str, str]:
    return environment(
        HOLDFAST_BROKER__URL=settings.broker.url.get_secret_value(),
        HOLDFAST_BROKER__EXCHANGE=settings.broker.exchange,
        HOLDFAST_BROKER__MAX_DELAY="3600",
        HOLDFAST_IDEMPOTENCY__URL=redis_url,
        HOLDFAST_WORKER__CONCURRENCY="8",
        HOLDFAST_WORKER__GRACE="20",
    )


@asynccontextmanager
async def a_crew(
    processes: int, folder: Path, env: dict[str, str], settings: Settings
) -> AsyncIterator[tuple[Crew, Site]]:
    with Running("run", "app:worker", "--processes", str(processes), folder=folder, env=env) as running:
        crew = Crew(running, folder, settings)
        yield crew, await crew.until_ready()


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def handled(site: Site) -> float:
    return total(await site.figures(), "holdfast_messages_settled_total", outcome="handled")


async def in_flight(site: Site) -> float:
    return total(await site.figures(), "holdfast_in_flight")


async def of_consumers(site: Site) -> tuple[float, float]:
    """What a process copies into the shared figures a few times a second, not with each message."""
    figures = await site.figures()
    return total(figures, "holdfast_messages_received_total"), total(figures, "holdfast_in_flight")


async def test_several_processes_share_the_work_and_look_like_one(
    folder: Path, env: dict[str, str], settings: Settings
) -> None:
    orders = [str(number) for number in range(400)]

    async with a_crew(3, folder, env, settings) as (crew, site):
        await crew.publish(*orders)
        await eventually(lambda: handled(site), 400)
        await eventually(lambda: of_consumers(site), (400, 0))
        figures, ready, live = await site.figures(), await site.ready(), await site.live()
        code = await asyncio.to_thread(crew.running.stop)

    queue = f"{settings.broker.exchange}.handle"
    assert code == 0
    assert crew.ledger("done") == Counter(orders)
    assert {line["process"] for line in crew.lines("delivery.settled")} == {1, 2, 3}
    assert ready == (200, {"ready": True, "missing": []})
    assert (live[0], set(live[1]["processes"])) == (200, {"1", "2", "3"})
    assert figure(figures, "holdfast_messages_received_total", queue=queue) == 400
    assert figure(figures, "holdfast_handler_seconds_count", queue=queue, handler="handle") == 400
    assert figure(figures, "holdfast_in_flight", queue=queue) == 0
    assert figure(figures, "holdfast_consumer_attached", queue=queue) == 1
    assert figure(figures, "holdfast_claims_total", queue=queue, result="acquired") == 400
    assert figure(figures, "holdfast_processes") == 3
    assert figure(figures, "holdfast_process_deaths_total") == 0
    assert figure(figures, "shop_seen_total") == 400


@pytest.mark.timeout(180)
async def test_one_of_four_killed_under_load_is_replaced_no_event_lost_the_figures_go_on(
    folder: Path, env: dict[str, str], settings: Settings
) -> None:
    orders = [str(number) for number in range(3_000)]
    seen: list[Figures] = []

    async def scrape() -> None:
        while True:
            seen.append(await site.figures())

    async with a_crew(4, folder, env, settings) as (crew, site):
        scraping = asyncio.create_task(scrape())
        publishing = asyncio.create_task(crew.publish(*orders))
        await crew.until_noted(lambda: len(crew.ledger("done")) > 300)
        victim = crew.pids[2]
        os.kill(victim, signal.SIGKILL)
        await crew.until(lambda: crew.lines("consumer.attached", process=2)[1:])
        await publishing
        await crew.until_noted(lambda: len(crew.ledger("done")) == len(orders))
        await eventually(lambda: depth(settings, f"{settings.broker.exchange}.handle"), 0)
        await eventually(site.is_ready, True)
        await eventually(lambda: in_flight(site), 0)
        scraping.cancel()
        last = await site.figures()
        code = await asyncio.to_thread(crew.running.stop)

    assert code == 0
    assert set(crew.ledger("done")) == set(orders)
    repeated = [order for order, times in crew.ledger("began").items() if times > 1]
    assert len(repeated) <= 8
    [died] = crew.lines("process.died")
    assert (died["number"], died["pid"], died["how"]) == (2, victim, "SIGKILL")
    assert died["again_in"] < 1
    for name in ("holdfast_messages_received_total", "holdfast_messages_settled_total"):
        told = [total(figures, name) for figures in [*seen, last]]
        assert told == sorted(told), name
    ends = total(last, "holdfast_messages_settled_total", outcome="handled")
    assert len(orders) - 8 <= ends <= len(orders) + 8  # what was acked and not yet counted when the process was killed
    assert figure(last, "holdfast_processes") == 4
    assert figure(last, "holdfast_process_deaths_total") == 1
    assert total(last, "holdfast_in_flight") == 0


async def test_sigterm_under_load_drains_all_and_nothing_is_lost(
    folder: Path, env: dict[str, str], settings: Settings
) -> None:
    orders = [str(number) for number in range(2_000)]

    async with a_crew(3, folder, env, settings) as (crew, _):
        publishing = asyncio.create_task(crew.publish(*orders))
        await crew.until_noted(lambda: len(crew.ledger("done")) > 200)
        first = await asyncio.to_thread(crew.running.stop)
        await publishing
        stopped = crew.lines("worker.stopped")
    async with a_crew(2, folder, env, settings) as (crew, _):
        await crew.until_noted(lambda: len(crew.ledger("done")) == len(orders))
        second = await asyncio.to_thread(crew.running.stop)

    assert (first, second) == (0, 0)
    assert [line["unfinished"] for line in stopped] == [0, 0, 0]
    assert crew.ledger("done") == crew.ledger("began") == Counter(orders)


async def test_a_signal_to_every_process_as_systemd_sends_it_drains_each_once(
    folder: Path, env: dict[str, str], settings: Settings
) -> None:
    async with a_crew(2, folder, env, settings) as (crew, _):
        await crew.publish(*(f"o-{number}" for number in range(8)), does="hang")
        await crew.until_noted(lambda: len(crew.ledger("began")) == 8)
        for pid in (crew.running.process.pid, *crew.pids.values()):
            os.kill(pid, signal.SIGTERM)
        await crew.until(lambda: len(crew.lines("worker.draining")) == 2)
        for pid in crew.pids.values():
            os.kill(pid, signal.SIGTERM)
        crew.let_go()
        code = await asyncio.to_thread(crew.running.process.wait, 60)

    assert code == 0
    assert crew.ledger("done") == crew.ledger("began")
    assert {line["unfinished"] for line in crew.lines("worker.stopped")} == {0}


async def test_a_second_sigterm_ends_all_at_once(folder: Path, env: dict[str, str], settings: Settings) -> None:
    async with a_crew(2, folder, env, settings) as (crew, site):
        await crew.publish("1", "2", does="hang")
        await crew.until_noted(lambda: len(crew.ledger("began")) == 2)
        crew.running.process.send_signal(signal.SIGTERM)
        await eventually(site.ready, (503, {"ready": False, "missing": ["draining"]}))
        await crew.until(lambda: len(crew.lines("worker.draining")) == 2)
        code = await asyncio.to_thread(crew.running.stop)

    assert code == 1
    assert not any(map(is_alive, crew.pids.values()))
    assert crew.lines("process.died") == []


async def test_when_the_parent_is_killed_its_children_drain_and_none_is_left(
    folder: Path, env: dict[str, str], settings: Settings
) -> None:
    async with a_crew(2, folder, env, settings) as (crew, _):
        await crew.publish("1", does="hang")
        await crew.until_noted(lambda: len(crew.ledger("began")) == 1)
        crew.running.process.kill()
        crew.running.process.wait()
        await crew.until(lambda: len(crew.lines("worker.draining")) == 2)
        crew.let_go()
        await eventually(lambda: any(map(is_alive, crew.pids.values())), False)

    assert crew.ledger("done") == Counter(["1"])


async def test_an_event_of_a_killed_process_is_taken_over_at_once(
    folder: Path, env: dict[str, str], settings: Settings
) -> None:
    env |= {"HOLDFAST_IDEMPOTENCY__LEASE": "600"}

    async with a_crew(2, folder, env, settings) as (crew, _):
        await crew.publish("1", does="hang")
        await crew.until_noted(lambda: len(crew.ledger("began")) == 1)
        runner = int((folder / "ledger").read_text().split()[2])
        os.kill(runner, signal.SIGKILL)
        await crew.until_noted(lambda: crew.ledger("began")["1"] == 2)
        crew.let_go()
        await crew.until_noted(lambda: crew.ledger("done")["1"] == 1)
        await asyncio.to_thread(crew.running.stop)

    assert crew.lines("event.suspected")


async def test_a_process_that_is_killed_while_all_drain_is_named_in_the_log(
    folder: Path, env: dict[str, str], settings: Settings
) -> None:
    async with a_crew(2, folder, env, settings) as (crew, _):
        await crew.publish("hangs", does="hang")
        await crew.until_noted(lambda: crew.ledger("began")["hangs"] == 1)
        crew.running.process.send_signal(signal.SIGTERM)
        await crew.until(lambda: len(crew.lines("worker.draining")) == 2)
        [busy] = [line["process"] for line in crew.lines("worker.draining", running=1)]
        os.kill(crew.pids[busy], signal.SIGKILL)
        code = await ended(crew.running.process)

    [died] = crew.lines("process.died")
    assert code == 1
    assert (died["number"], died["pid"], died["how"]) == (busy, crew.pids[busy], "SIGKILL")
    assert died["again_in"] is None


async def test_an_event_that_kills_its_process_is_blamed_and_the_processes_come_back(
    folder: Path, env: dict[str, str], settings: Settings
) -> None:
    async with a_crew(2, folder, env, settings) as (crew, site):
        await crew.publish("poison", does="die")
        await crew.until(lambda: crew.lines("delivery.settled", outcome="dead_lettered"))
        await crew.publish("good")
        await crew.until_noted(lambda: crew.ledger("done")["good"] == 1)
        await eventually(site.is_ready, True)
        await eventually(lambda: in_flight(site), 0)
        figures = await site.figures()
        code = await asyncio.to_thread(crew.running.stop)

    [settled] = crew.lines("delivery.settled", outcome="dead_lettered")
    assert (code, settled["reason"]) == (0, "crashed")
    assert crew.ledger("began")["poison"] == 3
    assert [line["how"] for line in crew.lines("process.died")] == ["exit code 3"] * 3
    assert figure(figures, "holdfast_process_deaths_total") == 3
    assert total(figures, "holdfast_in_flight") == 0


async def test_a_process_that_does_not_answer_is_named(folder: Path, env: dict[str, str], settings: Settings) -> None:
    env |= {"HOLDFAST_WORKER__LIVE_LIMIT": "1"}

    async with a_crew(2, folder, env, settings) as (crew, site):
        os.kill(crew.pids[2], signal.SIGSTOP)
        await eventually(site.ready, (503, {"ready": False, "missing": ["process 2: does not answer"]}))
        await eventually(site.is_live, False)
        os.kill(crew.pids[2], signal.SIGCONT)
        await eventually(site.is_ready, True)
        live = await site.is_live()
        code = await asyncio.to_thread(crew.running.stop)

    assert (live, code) == (True, 0)


async def test_a_blocked_loop_of_one_process_fails_the_liveness_of_all_and_is_named(
    folder: Path, env: dict[str, str], settings: Settings
) -> None:
    env |= {"HOLDFAST_WORKER__LIVE_LIMIT": "1", "HOLDFAST_WORKER__BLOCK_LIMIT": "0.5"}

    async with a_crew(2, folder, env, settings) as (crew, site):
        await crew.publish("1", does="block")
        await eventually(site.is_live, False)
        _, told = await site.live()
        crew.let_go()
        await eventually(site.is_live, True)
        code = await asyncio.to_thread(crew.running.stop)

    [blocked] = [
        line for line in crew.lines("loop.blocked") if "in handle" in line["stack"]
    ]  # a busy machine blocks too
    assert code == 0
    assert told["processes"][str(blocked["process"])] > 1


@pytest.mark.parametrize(
    ("changes", "arguments", "said"),
    [
        ({"HOLDFAST_BROKER__URL": "memory://"}, (), "memory:// lives in one process; --processes needs a RabbitMQ"),
        ({}, ("--only", "nobody"), "has no handler 'nobody'"),
        ({}, ("--concurrency", "10001"), "concurrency=10001: should be less than or equal to 10000"),
    ],
)
def test_what_cannot_work_is_one_line(
    folder: Path, env: dict[str, str], changes: dict[str, str], arguments: tuple[str, ...], said: str
) -> None:
    done = holdfast("run", "app:worker", "--processes", "2", *arguments, folder=folder, env=env | changes)

    [line] = done.stderr.splitlines()
    assert done.returncode == 1
    assert line.startswith("holdfast: ") and said in line


async def test_each_process_names_a_variable_that_nothing_reads(
    folder: Path, env: dict[str, str], settings: Settings
) -> None:
    async with a_crew(2, folder, env | {"HOLDFAST_BROKER_URL": "x"}, settings) as (crew, _):
        await asyncio.to_thread(crew.running.stop)

    named = {(line["process"], line["setting"].partition(" ")[0]) for line in crew.lines("setting.unknown")}
    assert named == {(1, "HOLDFAST_BROKER_URL"), (2, "HOLDFAST_BROKER_URL")}


def test_a_login_that_is_refused_to_all_is_said_once(folder: Path, env: dict[str, str], settings: Settings) -> None:
    address = settings.broker.url.get_secret_value().rpartition("@")[2]

    done = holdfast(
        "run", "app:worker", "--processes", "3",
        folder=folder, env=env | {"HOLDFAST_BROKER__URL": f"amqp://nobody:canary@{address}"},
    )  # fmt: skip

    said = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert done.returncode == 1
    assert len(said) == 1 and said[0].startswith("holdfast: ") and "canary" not in done.stderr


async def test_why_a_process_cannot_be_replaced_is_in_the_log(
    folder: Path, env: dict[str, str], settings: Settings
) -> None:
    secret = folder / "url"
    secret.write_text(env["HOLDFAST_BROKER__URL"])

    async with a_crew(2, folder, env | {"HOLDFAST_BROKER__URL_FILE": str(secret)}, settings) as (crew, _):
        secret.unlink()
        os.kill(crew.pids[1], signal.SIGKILL)
        await crew.until(lambda: len(crew.lines("process.died", number=1)) > 1)
        await asyncio.to_thread(crew.running.stop)

    killed, refused, *_ = crew.lines("process.died", number=1)
    assert killed["how"] == "SIGKILL"
    assert refused["how"].startswith("exit code 1: HOLDFAST_BROKER__URL_FILE: ")


@pytest.fixture
def taken() -> Iterator[int]:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_port_that_is_taken_is_one_line(folder: Path, env: dict[str, str], taken: int, processes: str) -> None:
    env |= {"HOLDFAST_HTTP__PORT": str(taken)}

    done = holdfast("run", "app:worker", "--processes", processes, folder=folder, env=env)

    assert done.returncode == 1
    assert done.stderr == (
        f"holdfast: HOLDFAST_HTTP__PORT: port {taken} of 127.0.0.1 is taken by another program; "
        "give another one, or 0 for any free one\n"
    )


async def test_processes_that_die_together_free_all_that_they_held(redis_url: str, unique: str) -> None:
    settings = settings_for("amqp://127.0.0.1:1/", unique, redis_url, prefix=unique)
    supervisor, heart = Supervisor([], settings, lambda fact: None, None), open_heart(settings)
    assert heart is not None

    for _ in range(100):
        owners = [secrets.token_bytes(8) for _ in range(4)]
        for owner in owners:
            heart.beat(owner, 15)
        await asyncio.gather(*(supervisor._free(1, owner, ()) for owner in owners))

    async with redis.asyncio.from_url(redis_url) as server:
        assert await server.keys(f"{unique}:*") == []


async def test_what_a_dead_process_had_forked_does_not_keep_its_supervisor_busy(tmp_path: Path) -> None:
    copy_app("forking", tmp_path, "forking")
    child = ChildProcess(1, Assignment("forking:worker", 0, None, (), -1, -1))
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "HOLDFAST_BROKER__URL": "amqp://127.0.0.1:1/"}

    await child.start(env)
    channel = child._channel
    await child.ended()  # but what it forked has the other end of the channel
    child.clear()
    os.kill(int((tmp_path / "forked").read_text()), signal.SIGKILL)

    assert channel is not None and channel.fileno() == -1  # it would be readable for ever once that has ended
