"""Requests that are followed through three services, on the real servers."""

import asyncio
import json
import random
import shutil
import signal
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import pytest
from commands import Running, environment, holdfast
from following import a_board, until_listening
from pages import ROOT
from running import running, settings_for
from waiting import Facts, eventually

from holdfast import BlockingPublisher, Event, Following, Metadata, Progress, Publisher, Settings, Worker
from holdfast.idempotency import Board, Entry
from holdfast.sql import Outbox, ddl
from holdfast.telemetry import Unfollowed
from holdfast.testing.servers import free_port

SERVICES, RELAY = ("shop", "books", "mail"), "relay"
ORDERS, KILLS = 30, 8


class Ordered(Event, type="chain.made"):
    number: int


@pytest.fixture
def settings(rabbitmq_url: str, redis_url: str, unique: str) -> Settings:
    return settings_for(rabbitmq_url, unique, redis_url, prefix=unique, lease=1)


@pytest.fixture
async def board(redis_url: str, unique: str) -> AsyncIterator[Board]:
    async with a_board(redis_url, unique) as opened:
        yield opened


class Fleet:
    """The three services, and a relay, each a process that can be killed."""

    def __init__(self, settings: Settings, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.name = settings.broker.exchange
        claims = settings.idempotency.url
        self.variables = environment(
            HOLDFAST_BROKER__URL=settings.broker.url.get_secret_value(),
            HOLDFAST_BROKER__EXCHANGE=self.name,
            HOLDFAST_BROKER__MAX_DELAY="3600",
            HOLDFAST_IDEMPOTENCY__URL=claims.get_secret_value() if claims else "",
            HOLDFAST_IDEMPOTENCY__PREFIX=self.name,
            HOLDFAST_IDEMPOTENCY__LEASE="1",
            HOLDFAST_IDEMPOTENCY__TIMEOUT="20",  # nothing is followed that cannot reach Redis
            HOLDFAST_HTTP__PORT="0",
            HOLDFAST_SQL__URL=f"sqlite:///{folder / 'orders.db'}",
            HOLDFAST_SQL__LEASE="1",
            FOLLOWED_NAME=self.name,
        )
        self._stack = stack
        shutil.copy(ROOT / "tests" / "apps" / "followed.py", folder)
        with closing(sqlite3.connect(folder / "orders.db")) as connection:
            connection.executescript(";".join(ddl(dialect="sqlite")))
        self.processes = {service: self._begin(service) for service in (*SERVICES, RELAY)}

    def _begin(self, service: str) -> Running:
        variables = self.variables | {"FOLLOWED_SERVICE": service}
        command = (RELAY,) if service == RELAY else ("run", "followed:worker")
        running = self._stack.enter_context(Running(*command, folder=self.folder, env=variables))
        self._stack.callback(lambda: print(f"{service} wrote", running.log))  # pytest shows it with a failure
        return running

    def order(self, number: int) -> Metadata:
        """Commit an order in the outbox, after a transaction that is rolled back."""
        outbox = Outbox(Settings(_env_file=None))  # type: ignore[call-arg]
        with closing(sqlite3.connect(self.folder / "orders.db")) as connection:
            outbox.publish(connection, Ordered(number=number), follow=True)
            connection.rollback()
            with connection:
                return outbox.publish(connection, Ordered(number=number), follow=True)

    def kill(self, service: str) -> None:
        self.processes[service].stop(signal.SIGKILL)
        self.processes[service] = self._begin(service)

    def lines(self) -> list[list[str]]:
        ledger = self.folder / "ledger"
        return [line.split() for line in ledger.read_text().splitlines()] if ledger.exists() else []


@pytest.mark.parametrize("by", ["a publisher", "an outbox"])
async def test_the_first_done_is_later_than_the_last_effect(
    settings: Settings, board: Board, tmp_path: Path, by: str
) -> None:
    """While services and the relay are killed; with retries, dead letters, their replays, and delayed events."""
    luck, said = random.Random(7), dict[str, float]()

    async def first_done(request: str) -> None:
        async def left() -> Progress | None:
            progress = await following.progress(request)
            return None if progress.done else progress

        await eventually(left, None, within=90)
        said[request] = time.monotonic()

    with ExitStack() as stack:
        fleet = Fleet(settings, tmp_path, stack)
        async with Publisher(settings) as publisher, Following(settings) as following, asyncio.TaskGroup() as tasks:
            await until_listening(board, len(SERVICES))
            if by == "an outbox":
                sent = [await asyncio.to_thread(fleet.order, n) for n in range(ORDERS)]
            else:
                sent = [await publisher.publish(Ordered(number=n), follow=True) for n in range(ORDERS)]
            requests = [str(metadata.follow) for metadata in sent]
            for request in requests:
                tasks.create_task(first_done(request))
            for kill in range(KILLS):
                await eventually(lambda kill=kill: len(fleet.lines()) > ORDERS * kill // 2)
                await asyncio.to_thread(fleet.kill, luck.choice((*SERVICES, RELAY)))
            failing = [requests[n] for n in range(0, ORDERS, 5)]

            async def have_failed() -> bool:
                return {(await following.progress(request)).state for request in failing} == {"failed"}

            await eventually(have_failed, within=60)
            assert not said.keys() & set(failing)
            (tmp_path / "mended").touch()
            replay = ("dead", "replay", f"{fleet.name}.books.book.dead", "--yes")
            replayed = await asyncio.to_thread(holdfast, *replay, folder=tmp_path, env=fleet.variables)
            assert replayed.returncode == 0, replayed.stderr
        last = {request: float(at) for request, _, _, at in fleet.lines()}
        effects: dict[str, set[tuple[str, str]]] = {request: set() for request in requests}
        for request, queue, event, _ in fleet.lines():
            effects[request].add((queue, event))

    assert last.keys() == said.keys() == set(requests)
    assert [request for request in requests if said[request] < last[request]] == []
    assert [len(seen) for seen in effects.values()] == [6] * ORDERS


async def test_a_publisher_that_blocks_begins_a_request_that_is_followed(settings: Settings, board: Board) -> None:
    worker = Worker(f"{settings.broker.exchange}.w", settings=settings)

    @worker.handler(Ordered)
    async def charge(event: Ordered) -> None: ...

    def publish() -> str:
        with BlockingPublisher(settings) as publisher:
            return str(publisher.publish(Ordered(number=1), follow=True).follow)

    async with running(worker), Following(settings) as following:
        await until_listening(board, 1)
        request = await asyncio.to_thread(publish)

        assert await following.until_done(request, within=10) == Progress("done", handled=1)


async def test_without_redis_an_event_is_published_and_not_followed(settings: Settings) -> None:
    facts = Facts()
    nowhere = f"redis://127.0.0.1:{free_port()}/0"
    worker = Worker(f"{settings.broker.exchange}.w", settings=settings, listeners=[facts.record])
    without = settings_for(settings.broker.url.get_secret_value(), settings.broker.exchange, nowhere)

    @worker.handler(Ordered)
    async def charge(event: Ordered) -> None: ...

    async with running(worker), Publisher(without, emit=facts.record) as publisher, Following(without) as following:
        sent = await publisher.publish(Ordered(number=1), follow=True)
        await facts.settled(count=1)

        [fact] = facts.of(Unfollowed)
        assert sent.follow is None
        assert (fact.event_type, fact.event_id, fact.request) == ("chain.made", sent.event_id, sent.correlation_id)
        assert await following.progress(sent.correlation_id) == Progress("unknown")


@pytest.fixture
def variables(redis_url: str, unique: str) -> dict[str, str]:
    return environment(HOLDFAST_IDEMPOTENCY__URL=redis_url, HOLDFAST_IDEMPOTENCY__PREFIX=unique)


async def test_the_command_prints_each_event_below_its_cause(
    board: Board, variables: dict[str, str], tmp_path: Path
) -> None:
    cause = Entry("shop.charge", "e-1", "order.made")
    await board.open("r", [cause], cause=None, life=60)
    await board.open(
        "r", [Entry("mail", "e-2", "order.paid", cause=("shop.charge", "e-1"))], cause=cause.field, life=60
    )
    await board.mark("r", Entry("shop.charge", "e-1", "order.made", "handled"), life=60)

    follow = partial(holdfast, "follow", "r", "--within", "0.2", folder=tmp_path, env=variables)
    waiting = await asyncio.to_thread(follow)
    await board.mark("r", Entry("mail", "e-2", "order.paid", "failed", "refused"), life=60)
    failed = await asyncio.to_thread(holdfast, "follow", "r", "--json", folder=tmp_path, env=variables)

    assert (waiting.returncode, waiting.stdout.splitlines()) == (
        1,
        [
            "order.made e-1 shop.charge: handled",
            "   order.paid e-2 mail: open",
            "open: 1 handled, 1 open, 0 failed",
        ],
    )
    document = json.loads(failed.stdout)
    assert (failed.returncode, document["state"], document["failed"]) == (
        1,
        "failed",
        [{"queue": "mail", "reason": "refused", "event_id": "e-2"}],
    )


async def test_the_command_takes_a_queue_that_is_gone_off_a_request(
    board: Board, variables: dict[str, str], tmp_path: Path
) -> None:
    await board.open("r", [Entry("shop", "e-1", state="open"), Entry("gone", "e-1", state="open")], cause=None, life=60)
    await board.mark("r", Entry("shop", "e-1", state="handled"), life=60)
    await board.announce("gone", "[]")

    for_request = await asyncio.to_thread(holdfast, "follow", "r", "--forget", "gone", folder=tmp_path, env=variables)
    at_all = await asyncio.to_thread(holdfast, "follow", "--forget", "gone", folder=tmp_path, env=variables)
    done = await asyncio.to_thread(holdfast, "follow", "r", folder=tmp_path, env=variables)

    assert (for_request.stdout, at_all.stdout) == (
        "r: gone is not waited for\n",
        "requests from now on: gone is not waited for\n",
    )
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "done: 1 handled, 0 open, 0 failed")
    assert await board.listeners() == {}


async def test_the_command_says_that_a_request_is_unknown_and_what_it_needs(
    variables: dict[str, str], tmp_path: Path
) -> None:
    unknown = await asyncio.to_thread(holdfast, "follow", "nobody", folder=tmp_path, env=variables)
    nothing = await asyncio.to_thread(holdfast, "follow", folder=tmp_path, env=variables)
    away = variables | {"HOLDFAST_IDEMPOTENCY__URL": f"redis://127.0.0.1:{free_port()}/0"}
    unavailable = await asyncio.to_thread(holdfast, "follow", "nobody", folder=tmp_path, env=away)

    assert (unknown.returncode, unknown.stdout) == (1, "unknown: 0 handled, 0 open, 0 failed\n")
    assert (nothing.returncode, nothing.stderr) == (
        1,
        "holdfast: name a request, as in `holdfast follow REQUEST`, or a queue with --forget\n",
    )
    assert unavailable.returncode == 1
    assert unavailable.stderr.startswith("holdfast: no connection to Redis")
