"""What happens in the demo, from the first order to the last line of the account."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.text import Text

from ...broker import open_broker
from ...config import LogSettings, Settings, load_settings
from ...dead_letters import DeadLetters, Pace, Selection
from ...events import Envelope, Message, Metadata, uuid7
from ...publisher import Publisher
from ...sql import Database
from ...telemetry import configure_logging
from ...testing.servers import ServersUnavailable, postgres_server, rabbitmq_server, redis_server
from ..dead.tables import groups_table, operation_line
from . import shop
from .account import Account
from .shop import EXCHANGE_OF_THE_DEMO, OrderCreated
from .stage import OneProcess, Processes, Stage

ORDERS = 300
EVERY_SO_MANY_TWICE = 10
"""Some orders are published twice, as by a publisher that had no answer the first time."""

PATIENCE = 60.0
"""Seconds after the last order in which every event must have found its end."""

CHARGE, RESERVE = "demo.payments.charge.dead", "demo.inventory.reserve.dead"
_SCHEMA = "holdfast_demo"
_WAIT = 20.0  # seconds without a word from the worker after which a replay is not waited for


def run_demo(*, memory: bool, postgres: bool = False) -> int:
    """Tell the whole story, in two acts. Returns 0 if every event and every order is accounted for."""
    configure_logging(LogSettings(level="CRITICAL"))
    console = Console(highlight=False)
    try:
        return asyncio.run(_in_memory(console) if memory else _on_servers(console, postgres=postgres))
    except KeyboardInterrupt:
        console.print("interrupted")
        return 130


async def _on_servers(console: Console, *, postgres: bool) -> int:
    console.print("Looking for RabbitMQ and Redis, or starting them ...")
    try:
        with (
            tempfile.TemporaryDirectory(prefix="holdfast-demo-") as folder,
            rabbitmq_server() as server,
            redis_server() as redis,
            postgres_server() if postgres else nullcontext() as database,
        ):
            broker = {"url": server.url, "exchange": EXCHANGE_OF_THE_DEMO}
            settings = load_settings(broker=broker, dead_letters={"folder": folder})
            shop.fixed = Path(folder) / "bank-is-fixed"
            account = Account()
            stage = Processes(server.url, redis.url, Path(folder), account)
            code = await _tell(console, settings, account, stage, per_second=15)
            url = f"sqlite:///{folder}/orders.db" if database is None else database.url
            return code or await _second_act(console, settings, url, Path(folder), (server.url, redis.url))
    except ServersUnavailable as error:
        console.print(f"holdfast: {error}", markup=False)
        return 1


async def _in_memory(console: Console) -> int:
    with tempfile.TemporaryDirectory(prefix="holdfast-demo-") as folder:
        settings = load_settings(
            broker={"url": "memory://demo", "exchange": EXCHANGE_OF_THE_DEMO},
            idempotency={"url": "memory://demo"},
            dead_letters={"folder": folder},
            log={"successes": 10_000},
        )
        shop.fixed = Path(folder) / "bank-is-fixed"
        account = Account()
        broker = await open_broker(settings, lambda fact: None)  # keeps the queues while no worker is connected
        try:
            code = await _tell(console, settings, account, OneProcess(settings, Path(folder), account), per_second=120)
            return code or await _second_act(console, settings, f"sqlite:///{folder}/orders.db", Path(folder))
        finally:
            await broker.close()


async def _second_act(
    console: Console, settings: Settings, url: str, folder: Path, servers: tuple[str, str] | None = None
) -> int:
    """Tell the act of the saga, whose orders are in a database: in processes on the servers, or in this one."""
    if find_spec("sqlalchemy") is None:
        console.print(
            'The second act, with a saga, needs a database: pip install "holdfast-rabbitmq[sql]"', markup=False
        )
        return 0
    from . import fulfilment, ledger, second_act

    (folder := folder / "second-act").mkdir()
    database, books = Database.of_url(url), ledger.Ledger()
    settings = settings.model_copy(update={"sql": settings.sql.model_copy(update={"schema": _SCHEMA})})
    workers, module = fulfilment.make_workers(database), fulfilment.__name__
    stage: Stage
    if servers is None:
        stage = OneProcess(settings, folder, books, workers)
    else:
        more = {"DEMO_ORDERS": url, "HOLDFAST_SQL__SCHEMA": _SCHEMA}
        stage = Processes(*servers, folder, books, workers, module, **more)
    try:
        return await second_act.perform(console, settings, database, books, stage)
    finally:
        await database.close()


async def _tell(console: Console, settings: Settings, account: Account, stage: Stage, *, per_second: int) -> int:
    faults: list[str] = []
    began = datetime.now(UTC)
    try:
        for name in ("payments", "inventory", "notifications"):
            await stage.start(name)
        console.print(f"Three workers listen. Publishing {ORDERS} orders, a malformed message and an unknown one.\n")
        async with _progress(console, account, stage):
            await _publish(console, settings, account, stage, per_second)
            await _until_settled(account, stage)
            await _fix_and_replay(console, settings, account, began)
            await _until_settled(account, stage)
    finally:
        faults += await stage.stop()
    console.print(account.table())
    console.print(_summary(account), markup=False)
    faults += [f"missing: {line}" for line in account.missing()] + account.surplus()
    for fault in faults:
        console.print(f"  {fault}", markup=False)
    console.print("Not everything is accounted for." if faults else "Nothing was lost.")
    return 1 if faults else 0


async def _publish(console: Console, settings: Settings, account: Account, stage: Stage, per_second: int) -> None:
    async with Publisher(settings, source="demo.shop") as publisher:
        for order in range(1, ORDERS + 1):
            created = OrderCreated(order=order, total=order / 4)
            metadata = await publisher.publish(created)
            account.orders.add(order)
            if order % EVERY_SO_MANY_TWICE == 0:
                await publisher.publish(created, metadata=metadata)
            if order == ORDERS // 4:
                await publisher.publish(_foreign("order.created", b"this is not JSON"))
                await _send_unknown(settings)
            if order == ORDERS // 3:
                console.print(await stage.kill("payments"), markup=False)
            if order == ORDERS // 2:
                await stage.start("payments")
                console.print("the payments worker was started again", markup=False)
            await asyncio.sleep(1 / per_second)


async def _fix_and_replay(console: Console, settings: Settings, account: Account, since: datetime) -> None:
    """Show the dead letters by their reasons, fix the bank, and replay what died of it."""
    broker = await open_broker(settings, lambda fact: None)
    service = DeadLetters(settings, broker, by="demo")
    died = Selection(since=since.isoformat())
    try:
        for queue in (CHARGE, RESERVE):
            index = await service.read(queue)
            console.print(f"\n{queue}, {index.count(died)} dead letter(s):", markup=False)
            console.print(groups_table(index.groups(died)))
        shop.fixed.touch()
        console.print("The bank is fixed. What died of it is replayed: one letter, then ten, then the rest.")
        operation = service.replay(CHARGE, replace(died, reason="exhausted"))
        ended = await service.work(operation, Pace(wait=_WAIT)).run()
        console.print(f"{operation_line(ended)}\n", markup=False)
        account.replayed = ended.counts.get("handled", 0)
    finally:
        service.close()
        await broker.close()


async def _send_unknown(settings: Settings) -> None:
    """A message that somebody put into the queue of payments by hand."""
    broker = await open_broker(settings, lambda fact: None)
    message = Message(b"{}", "", "demo.payments.charge", message_id=uuid7(), type="nobody.knows.this")
    try:
        await broker.publish(message, timeout=10)
    finally:
        await broker.close()


def _foreign(event_type: str, body: bytes) -> Envelope:
    return Envelope(Metadata(uuid7(), event_type, datetime.now(UTC), source="somebody else"), body)


async def _until_settled(account: Account, stage: Stage) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE
    while account.missing() and loop.time() < deadline:
        await asyncio.sleep(0.1)
        stage.look()


@asynccontextmanager
async def _progress(console: Console, account: Account, stage: Stage) -> AsyncIterator[None]:
    """Live on a terminal, a line every few seconds elsewhere."""
    pause = 0.2 if console.is_terminal else 4.0
    with Live(console=console, auto_refresh=False, transient=True) as live:

        async def show() -> None:
            while True:
                stage.look()
                line = Text(_summary(account))
                if console.is_terminal:
                    live.update(line, refresh=True)
                else:
                    console.print(line)
                await asyncio.sleep(pause)

        showing = asyncio.create_task(show())
        try:
            yield
        finally:
            showing.cancel()
            await asyncio.gather(showing, return_exceptions=True)
            stage.look()


def _summary(account: Account) -> str:
    outcomes = account.outcomes
    return (
        f"orders published {len(account.orders)}/{ORDERS} · handled {outcomes['handled']} · "
        f"duplicates {outcomes['duplicate']} · postponed {outcomes['postponed']} · "
        f"dead-lettered {outcomes['dead_lettered']} · given back {outcomes['given_back']} · "
        f"repeated after the kill {len(account.repeats())}"
    )
