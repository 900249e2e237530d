"""The tasks and threads that last as long as a worker: each meets an error that nobody foresaw, reports it, goes on."""

import ast
import asyncio
import random
import socket
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, get_args

import pytest
import uvicorn
from fulfilment import Fulfilment
from offline import Paid, an_offline_worker
from running import a_broker, running, settings_for
from scraping import Site
from waiting import Arrivals, Facts, eventually

from holdfast import Settings
from holdfast.broker import REAL, REGISTRY, Binding, Broker, Consumer, Delivery, Depth, OnDelivery, Topology, ladder
from holdfast.broker import open_broker as really_open
from holdfast.broker.memory import MemoryBroker
from holdfast.cli.processes.child import Channel
from holdfast.cli.processes.child_process import ChildProcess
from holdfast.cli.processes.parent import Supervisor
from holdfast.cli.processes.protocol import Assignment
from holdfast.config import HttpSettings
from holdfast.consumer import Dependencies
from holdfast.events import Message
from holdfast.idempotency import Acquired, Answer, Boards, Claim, Lease, MemoryBoard, MemoryClaims, StoreUnavailable
from holdfast.journal import Projection, Recorded
from holdfast.outbox import Relay, relaying
from holdfast.sagas.sweeper import Sweeper
from holdfast.sql import Database, Steps, ddl
from holdfast.telemetry import (
    Attached,
    Connected,
    Endpoint,
    Fact,
    LeaseTaken,
    LoopBlocked,
    ProjectionStalled,
    RelayFailed,
    Resumed,
    SagasCounted,
    TaskFailed,
    Watchdog,
    keep_running,
    open_spans,
)
from holdfast.telemetry.facts import Lasting

ROOT = Path(__file__).parents[2]
SUPERVISED = {"keep_running", "keep_turning"}
AWAITED = {
    "broker/amqp/browser.py": 2,  # reading of a queue: its caller sees how each ended
    "broker/amqp/connection.py": 1,  # a connection or channel that closes
    "broker/amqp/lifetime.py": 1,  # what is awaited as long as its connection lives
    "broker/amqp/publisher.py": 1,  # the opening of a channel: those who publish on it await it
    "cli/dead/rehearsal.py": 1,  # a run of handlers on letters
    "cli/dead/session.py": 2,  # an operation that is waited for
    "cli/demo/stage.py": 1,  # the demo's workers
    "cli/demo/story.py": 1,  # what the demo shows
    "cli/doctor/databases.py": 1,  # a look at whether notifications arrive
    "cli/journal/recording.py": 1,  # the recorder, which the command awaits
    "cli/processes/parent.py": 2,  # the end of a process, or the wish to stop
    "cli/publish.py": 1,  # lines of standard input
    "consumer/ordering/ownership.py": 2,  # getting in line, and reading: the owner awaits both
    "consumer/ordering/partition.py": 1,  # waits of an owner
    "consumer/ordering/seat.py": 1,  # what an owner writes: its error ends the ownership
    "consumer/ordering/writer.py": 1,  # a copy that is written: awaited with its ownership
    "consumer/pipeline.py": 3,  # deliveries: `PipelineFailed` reports what they raise
    "consumer/runtime.py": 2,  # the deliveries in flight at the end
    "consumer/settle.py": 1,  # a claim that is released
    "consumer/subscription.py": 1,  # consumers that are left behind by an outage
    "dashboard/background.py": 1,  # operations of the page, which shows how they ended
    "dead_letters/queues.py": 1,  # questions that are awaited together
    "dead_letters/receipts.py": 1,  # the receipts of an operation, which ends with their error
    "idempotency/redis/batches.py": 1,  # a batch: whoever asked has its error
    "journal/projector.py": 3,  # waits of a projection, and its turn, which it awaits
    "outbox/relay.py": 3,  # waits of a relay, and its publishes, which it awaits
    "outbox/running.py": 2,  # next to a relay: both go on after any error, and the relay polls without them
    "publisher/blocking.py": 1,  # the thread of the loop: whoever publishes has the errors, and closing joins it
    "publisher/publisher.py": 2,  # publishes of one call, and a declaration that they await
    "sql/listener.py": 1,  # the proof that notifications arrive, ended with its connection
    "sql/steps.py": 1,  # what a thread does: the caller has its error
    "sql/waker.py": 1,  # a notification: the relay polls without it
    "telemetry/http.py": 1,  # a page that a request awaits
    "telemetry/supervision.py": 2,  # what comes to its end, or is given up: whoever asked for it awaits it
}
"""The tasks and threads that end: how many a file begins, and where their errors go."""


def test_every_task_and_thread_of_the_product_is_supervised_or_its_end_is_awaited() -> None:
    awaited: dict[str, int] = {}
    for path in sorted(ROOT.glob("*/**/*.py")):
        name = path.relative_to(ROOT).as_posix()
        if name.split("/")[0] in ("tests", "testing", "benchmarks", "examples", "scripts", "build") or name[0] == ".":
            continue
        tree = ast.parse(path.read_text())
        kept = {
            target
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign) and keeps(node.value)
            for target in node.targets
        }
        names = {target.id for target in kept if isinstance(target, ast.Name)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and begins(node) and not supervised(node, names):
                awaited[name] = awaited.get(name, 0) + 1

    assert awaited == AWAITED


def begins(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    return name in ("create_task", "ensure_future", "Thread")


def keeps(value: ast.expr) -> bool:
    """Whether a value is work under a last guard."""
    return any(isinstance(node, ast.Name) and node.id in SUPERVISED for node in ast.walk(value))


def supervised(call: ast.Call, names: set[str]) -> bool:
    """Whether what is begun is under a last guard, in its place or by the name of a variable or method."""
    given = [*call.args[:1], *(word.value for word in call.keywords if word.arg == "target")]
    return any(
        keeps(value)
        or (isinstance(value, ast.Name) and value.id in names)
        or (isinstance(value, ast.Attribute) and value.attr == "_live")  # of a lease: the guard and the end behind it
        for value in given
    )


class Once:
    """Raises the first time, for things of one kind; afterwards it does nothing."""

    def __init__(self) -> None:
        self.left = 1

    def __call__(self, *_: object) -> None:
        if self.left:
            self.left -= 1
            raise KeyError("nobody foresaw this")


class Listener(Facts):
    """Facts, of which the first of a kind meets an error."""

    def __init__(self, kind: type[Fact]) -> None:
        super().__init__()
        self._kind, self._fails = kind, Once()

    def __call__(self, fact: Fact) -> None:
        super().__call__(fact)
        if isinstance(fact, self._kind):
            self._fails()


class FaultyBroker:
    """A broker of which each of these methods raises once."""

    def __init__(self, broker: Broker, *methods: str) -> None:
        self._broker = broker
        self._faults = {method: Once() for method in methods}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)

    async def publish(self, message: Message, *, timeout: float | None) -> None:
        if message.routing_key == REGISTRY:
            self._fail("publish")
        await self._broker.publish(message, timeout=timeout)

    async def consume(self, queue: str, *, prefetch: int, on_delivery: OnDelivery) -> Consumer:
        self._fail("consume")
        return await self._broker.consume(queue, prefetch=prefetch, on_delivery=on_delivery)

    async def count(self, queue: str) -> Depth | None:
        self._fail("count")
        return await self._broker.count(queue)

    def _fail(self, method: str) -> None:
        self._faults.get(method, lambda: None)()


async def a_connection(settings: Settings) -> TaskFailed:
    facts = Listener(Connected)
    async with a_broker(settings, facts) as broker:
        await broker.declare(Topology())
        await facts.until(Connected, count=2)
        [failed] = await facts.until(TaskFailed)
    return failed


async def a_consumer(settings: Settings) -> TaskFailed:
    facts, inbox = Listener(Attached), Arrivals[Delivery]()
    async with a_broker(settings, facts) as broker:
        await broker.declare(ladder.ladder(1))
        await broker.consume(ladder.UNROUTED, prefetch=1, on_delivery=inbox)
        await facts.until(Attached, count=2)
        [failed] = await facts.until(TaskFailed)
    return failed


async def a_redeclaration(settings: Settings) -> TaskFailed:
    facts = Facts()
    async with a_broker(settings, facts) as broker:
        amqp: Any = broker
        await broker.declare(Topology())
        amqp._declared = Topology(bindings=(Binding("no", "such", "shape", headers=Odd()),))  # type: ignore[arg-type]
        amqp._redeclare_soon()
        [failed] = await facts.until(TaskFailed)
    return failed


class Odd(tuple[Any, ...]):
    """Headers of a binding that cannot be read."""

    __slots__ = ()

    def __iter__(self) -> Any:
        raise KeyError("nobody foresaw this")


async def consumers(settings: Settings) -> TaskFailed:
    return await of_a_worker("consume")


async def the_registry(settings: Settings) -> TaskFailed:
    return await of_a_worker("publish")


async def the_unrouted(settings: Settings) -> TaskFailed:
    return await of_a_worker("count")


async def of_a_worker(method: str) -> TaskFailed:
    offline = an_offline_worker()

    @offline.worker.handler(Paid)
    async def handle(event: Paid) -> None: ...

    async def opened(settings: Settings, emit: Callable[[Fact], None]) -> Broker:
        return FaultyBroker(await really_open(settings, emit), method)  # type: ignore[return-value]

    async with running(offline.worker, dependencies=Dependencies(open_broker=opened)):
        [failed] = await offline.facts.until(TaskFailed)
        await offline.publish("o-1")
        await offline.facts.settled("handled")
    return failed


class Odder(MemoryClaims):
    """One that is unavailable, and whose first probe meets an error."""

    fails, is_away = Once(), True

    async def claim(self, claim: Claim, *, alone: bool = False, max_crashes: int = 3) -> Answer:
        if ":probe:" in claim.key:
            self.fails()
            self.is_away = False
        elif self.is_away:
            raise StoreUnavailable("away")
        await super().claim(claim, alone=alone, max_crashes=max_crashes)
        return Acquired()


async def the_recovery(settings: Settings) -> TaskFailed:
    Odder.fails = Once()
    offline = an_offline_worker(Odder)

    @offline.worker.handler(Paid)
    async def handle(event: Paid) -> None: ...

    async with offline.running():
        await offline.publish("o-1")
        [failed] = await offline.facts.until(TaskFailed)
        await offline.facts.until(Resumed)
        await offline.facts.settled("handled")
    return failed


class OddSeconds(float):
    """Seconds that cannot be divided the first time."""

    fails = Once()

    def __truediv__(self, other: float) -> float:
        self.fails()
        return float(self) / other


class Beats(Arrivals[bytes]):
    """A heart that beats."""

    def beat(self, owner: bytes, seconds: float) -> bool:
        self.all.append(owner)
        return True

    def stop(self, owner: bytes) -> None: ...


async def the_heartbeat(settings: Settings) -> TaskFailed:
    facts, heart = Facts(), Beats()
    lease = Lease(heart, seconds=OddSeconds(1), emit=facts)
    await lease.start()
    [failed] = await facts.until(TaskFailed)
    await eventually(lambda: len(heart.all) > 2)
    await lease.stop()
    assert facts.of(LeaseTaken)
    return failed


async def the_watchdog(settings: Settings) -> TaskFailed:
    told = threading.Semaphore(0)
    facts = Listener(LoopBlocked)

    def tell(fact: Fact) -> None:
        if isinstance(fact, LoopBlocked | TaskFailed):
            told.release()
            facts(fact)

    watchdog = Watchdog(0.1, tell)
    watchdog.start(asyncio.get_running_loop())
    for _ in range(3):  # a blockage that meets the error, the error, and another blockage
        assert told.acquire(timeout=20)
        await asyncio.sleep(0)
    watchdog.stop()
    [failed] = facts.of(TaskFailed)
    return failed


async def the_probes(settings: Settings) -> TaskFailed:
    facts, fails, serve = Arrivals[Fact](), Once(), uvicorn.Server.serve

    async def serve_at_last(self: uvicorn.Server, sockets: list[socket.socket] | None = None) -> None:
        fails()
        await serve(self, sockets)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uvicorn.Server, "serve", serve_at_last)
        endpoint = Endpoint(HttpSettings(port=0), collect=lambda: (), live=well, ready=well, emit=facts.all.append)
        site = Site(endpoint.start())
        await eventually(site.is_ready, True)
        await asyncio.to_thread(endpoint.stop)
    [failed] = facts.all
    assert isinstance(failed, TaskFailed)
    return failed


def well() -> tuple[bool, dict[str, Any]]:
    return True, {}


class OddProcess(ChildProcess):
    """One that cannot be started the first time, for a reason that is none of the system's."""

    fails = Once()

    async def start(self, environment: Any) -> int:
        self.fails()
        self.process = await asyncio.create_subprocess_exec("sleep", "600")
        return self.process.pid


async def the_processes(settings: Settings) -> TaskFailed:
    facts = Facts()
    child = OddProcess(1, Assignment("app:worker", 0, None, (), -1, -1))
    supervisor = Supervisor([child], settings_for("amqp://127.0.0.1:1/", "x"), facts, None)
    running = asyncio.create_task(supervisor.run())
    [failed] = await facts.until(TaskFailed)
    await eventually(lambda: child.running is not None)
    supervisor._stop()
    assert await running == 0
    return failed


class Orphan(Channel):
    """One that does not end this process once its parent is gone."""

    has_ended = threading.Event()

    def _end(self) -> None:
        self._socket.close()
        self.has_ended.set()


async def the_reports(settings: Settings) -> TaskFailed:
    facts, (ours, theirs) = Arrivals[Fact](), socket.socketpair()
    channel = Orphan(theirs, facts.all.append)
    odd: Any = OddMetrics()
    channel.watch(an_offline_worker().worker, odd)
    channel.start()
    with ours, ours.makefile("rb") as reports:
        assert b"not running" in await asyncio.to_thread(reports.readline)
    assert await asyncio.to_thread(channel.has_ended.wait, 20)
    [failed] = facts.all
    assert isinstance(failed, TaskFailed)
    return failed


class OddMetrics:
    """Figures that cannot be copied the first time. (A compiled class has no Python subclasses.)"""

    fails = Once()

    def refresh(self) -> None:
        self.fails()


async def the_relay(settings: Settings) -> TaskFailed:
    facts, database = Listener(RelayFailed), Database.sqlite(":memory:")
    relay = Relay(
        database, MemoryBroker(None), settings, emit=facts, spans=open_spans(), clock=REAL, luck=random.random
    )
    running = asyncio.create_task(keep_running("relay", partial(relaying, relay, settings, facts, REAL), facts))
    await facts.until(RelayFailed, count=2)  # there are no tables
    [failed] = await facts.until(TaskFailed)
    relay.stop()
    await running
    return failed


async def the_projection(settings: Settings) -> TaskFailed:
    """What a projection reports of its own trouble goes to a listener that fails."""
    facts, database, balances = Listener(ProjectionStalled), Database.sqlite(":memory:"), Projection("balances")

    @balances.on(Paid)
    def note(event: Paid, at: Recorded, connection: Any) -> None: ...

    kept = settings.model_copy(update={"sql": settings.sql.model_copy(update={"keep": 1.0})})
    job = balances.job(database, kept, facts, REAL)
    running = asyncio.create_task(keep_running("projection", job.run, facts))
    await facts.until(ProjectionStalled, count=2)  # there are no tables
    [failed] = await facts.until(TaskFailed)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return failed


async def the_sagas(settings: Settings) -> TaskFailed:
    """The figures of sagas go to a listener that fails."""
    facts, database = Listener(SagasCounted), Database.sqlite(":memory:")
    await database.run(tables())
    sweeper = Sweeper(Fulfilment, "orders.fulfilment", database, settings, REAL, facts, nothing_to_send)
    running = asyncio.create_task(keep_running("sagas", sweeper.run, facts))
    await facts.until(SagasCounted, count=2)
    [failed] = await facts.until(TaskFailed)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return failed


class OddBoard(MemoryBoard):
    """A board that the first announcement of a queue meets in a bad moment."""

    def __init__(self) -> None:
        super().__init__(REAL.time)
        self.fails, self.announced = Once(), asyncio.Event()

    async def announce(self, queue: str, bindings: str) -> None:
        self.fails()
        await super().announce(queue, bindings)
        self.announced.set()


async def the_listeners(settings: Settings) -> TaskFailed:
    facts, board = Facts(), OddBoard()
    boards = Boards(board, settings.broker.exchange, REAL, facts)
    running = asyncio.create_task(keep_running("listeners", partial(boards.keep, {"q": []}), facts))
    await board.announced.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    [failed] = facts.of(TaskFailed)
    return failed


def tables() -> Steps[None]:
    for statement in ddl(dialect="sqlite"):
        yield statement, {}


async def nothing_to_send() -> None: ...


LASTING: dict[str, Callable[[Settings], Awaitable[TaskFailed]]] = {
    "connection": a_connection,
    "consumer": a_consumer,
    "consumers": consumers,
    "redeclaration": a_redeclaration,
    "registry": the_registry,
    "unrouted": the_unrouted,
    "recovery": the_recovery,
    "heartbeat": the_heartbeat,
    "watchdog": the_watchdog,
    "probes": the_probes,
    "processes": the_processes,
    "reports": the_reports,
    "relay": the_relay,
    "projection": the_projection,
    "sagas": the_sagas,
    "listeners": the_listeners,
}


@pytest.mark.parametrize("task", get_args(Lasting))
async def test_a_task_that_is_to_last_outlives_an_error_that_nobody_foresaw(settings: Settings, task: str) -> None:
    failed = await LASTING[task](settings)

    assert failed.task == task
    assert isinstance(failed.error, KeyError)
