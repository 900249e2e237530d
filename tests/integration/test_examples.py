"""Every example runs, as a reader would run it."""

import asyncio
import json
import sqlite3
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TypeAlias

import pytest
from commands import Running, environment, holdfast, script
from following import a_board, until_listening
from running import a_broker

from holdfast import Settings
from holdfast.broker import Binding, Exchange, Queue, Topology

EXAMPLES = Path(__file__).parents[2] / "examples"
Example: TypeAlias = Callable[[str, Path], Path]


@pytest.fixture
def variables(settings: Settings, redis_url: str, unique: str) -> dict[str, str]:
    """A reader's environment: a broker and a Redis in which nothing of another test is seen."""
    return environment(
        HOLDFAST_BROKER__URL=settings.broker.url.get_secret_value(),
        HOLDFAST_BROKER__EXCHANGE=settings.broker.exchange,
        HOLDFAST_BROKER__MAX_DELAY="60",
        HOLDFAST_IDEMPOTENCY__URL=redis_url,
        HOLDFAST_IDEMPOTENCY__PREFIX=unique,
        HOLDFAST_LOG__FORMAT="json",
    )


@pytest.fixture
def the_example(unique: str) -> Example:
    """Copies an example into a folder, for what it writes beside itself; its queues have names of this test's own."""

    def copy(name: str, folder: Path) -> Path:
        for file in (file for end in ("py", "html") for file in (EXAMPLES / name).rglob(f"*.{end}")):
            place = folder / file.relative_to(EXAMPLES / name)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(file.read_text().replace('Worker("', f'Worker("{unique}.'))
        return folder

    return copy


def said(log: str, event: str, **fields: object) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event and fields.items() <= line.items()]


def publish(kind: str, event: dict[str, object], folder: Path, variables: dict[str, str], *more: str) -> None:
    done = holdfast("publish", kind, json.dumps(event), *more, folder=folder, env=variables)
    assert done.returncode == 0, done.stderr


def test_the_worker_charges_an_order_and_refuses_one_that_costs_nothing(
    tmp_path: Path, variables: dict[str, str], the_example: Example
) -> None:
    folder = the_example("worker", tmp_path)
    with Running("run", "app:worker", folder=folder, env=variables) as worker:
        worker.until(lambda log: bool(said(log, "worker.started")))

        publish("order.created", {"order_id": "o-1", "total": "9.50"}, folder, variables)
        publish("order.created", {"order_id": "free", "total": "0"}, folder, variables)

        worker.until(lambda log: bool(said(log, "receipt.sent", order="o-1", total="9.50")))
        worker.until(lambda log: bool(said(log, "delivery.settled", outcome="dead_lettered", reason="refused")))
        assert worker.stop() == 0


def test_an_order_of_the_web_application_is_paid_and_shipped_once_in_its_database(
    tmp_path: Path, variables: dict[str, str], the_example: Example
) -> None:
    folder, variables = the_example("database", tmp_path), variables | {"HOLDFAST_SQL__URL": "sqlite:///shop.db"}
    (folder / "client.py").write_text(
        "from starlette.testclient import TestClient\n"
        "from web import app\n"
        "with TestClient(app) as client:\n"
        "    assert client.post('/orders/o-1', json={'cents': 950}).status_code == 202\n"
    )
    assert holdfast("sql", "schema", "--apply", folder=folder, env=variables).returncode == 0
    done = script("client.py", folder, variables)
    assert done.returncode == 0, done.stderr

    with Running("run", "app:worker", folder=folder, env=variables) as worker:
        worker.until(lambda log: bool(said(log, "order.shipped", order="o-1")))
        worker.until(lambda log: len(said(log, "delivery.settled", outcome="handled")) == 2)
        assert worker.stop() == 0

    with sqlite3.connect(folder / "shop.db") as database:
        assert database.execute("select * from orders").fetchall() == [("o-1", 950, "shipped")]
        assert database.execute("select count(*) from holdfast_events").fetchall() == [(0,)]


def test_a_saga_ships_an_order_or_takes_it_back(
    tmp_path: Path, variables: dict[str, str], the_example: Example
) -> None:
    folder, variables = the_example("order_saga", tmp_path), variables | {"HOLDFAST_SQL__URL": "sqlite:///shop.db"}
    (folder / "client.py").write_text(
        "from starlette.testclient import TestClient\n"
        "from web import app\n"
        "with TestClient(app) as client:\n"
        "    for order, cents in (('o-1', 950), ('dear', 200_000), ('far-1', 10)):\n"
        "        assert client.post(f'/orders/{order}', json={'cents': cents}).status_code == 202\n"
    )
    assert holdfast("sql", "schema", "--apply", folder=folder, env=variables).returncode == 0

    with ExitStack() as stack:
        workers = {}
        for name in ("orders", "payment", "inventory", "shipping"):
            worker = stack.enter_context(Running("run", f"{name}:worker", folder=folder, env=variables))
            workers[name] = worker
        for worker in workers.values():
            worker.until(lambda log: bool(said(log, "worker.started")))
        done = script("client.py", folder, variables)
        assert done.returncode == 0, done.stderr

        workers["shipping"].until(lambda log: bool(said(log, "shipped", order="o-1")))
        workers["payment"].until(lambda log: bool(said(log, "refunded", order="far-1")))
        workers["inventory"].until(lambda log: bool(said(log, "released", order="far-1")))
        workers["orders"].until(lambda log: len(said(log, "delivery.settled", outcome="handled")) == 11)
        assert [worker.stop() for worker in workers.values()] == [0, 0, 0, 0]

    with sqlite3.connect(folder / "shop.db") as database:
        ends = database.execute("select key, stage, reason from holdfast_sagas order by key").fetchall()
        assert ends == [
            ("dear", "cancelled", None),
            ("far-1", "cancelled", "not shipped: too far"),
            ("o-1", "shipped", None),
        ]


def test_several_workers_of_one_repository_hand_an_order_on(
    tmp_path: Path, variables: dict[str, str], the_example: Example
) -> None:
    with ExitStack() as stack:
        workers = {}
        for name in ("mail", "billing", "orders"):
            folder = the_example("several", tmp_path / name)
            workers[name] = stack.enter_context(Running("run", f"shop.{name}:worker", folder=folder, env=variables))
        for worker in workers.values():
            worker.until(lambda log: bool(said(log, "worker.started")))

        publish("order.placed", {"order_id": "o-1", "email": "a@example.com", "cents": 950}, tmp_path, variables)

        workers["mail"].until(lambda log: bool(said(log, "mail.sent", letter="receipt", to="a@example.com")))
        workers["mail"].until(lambda log: bool(said(log, "mail.sent", letter="confirmation")))
        assert said(workers["billing"].log, "charged", order="o-1", cents=950)
        assert [worker.stop() for worker in workers.values()] == [0, 0, 0]


FOLLOWER = """
import json, subprocess, sys
from fastapi.testclient import TestClient
from web import app

with TestClient(app) as client:
    assert "EventSource" in client.get("/").text
    answer = client.post("/orders", json={"order_id": "o-1"})
    assert answer.status_code == 202, answer.text
    progress = answer.json()["progress"]
    assert client.get(progress).json()["state"] == "open"
    with subprocess.Popen([sys.executable, "-m", "holdfast", "run", "orders:worker"]) as worker:
        with client.stream("GET", f"{progress}/events") as changes:
            states = [json.loads(line[6:])["state"] for line in changes.iter_lines() if line]
        assert (states[0], states[-1], set(states[:-1])) == ("open", "done", {"open"}), states
        worker.terminate()
    assert client.get(progress).json()["handled"] == 2
"""


async def test_the_page_that_follows_an_order_is_told_when_its_confirmation_arrived(
    tmp_path: Path, variables: dict[str, str], the_example: Example, redis_url: str, unique: str
) -> None:
    folder = the_example("following", tmp_path)
    async with a_board(redis_url, unique) as board:
        with Running("run", "orders:worker", folder=folder, env=variables) as worker:
            await until_listening(board, 2)
            assert worker.stop() == 0
    (folder / "client.py").write_text(FOLLOWER)

    done = await asyncio.to_thread(script, "client.py", folder, variables)

    assert done.returncode == 0, done.stderr


CLIENT = """
from fastapi.testclient import TestClient
from web import app

with TestClient(app) as client:
    order = {"order_id": "o-1", "total": "9.50"}
    requests = [(order, "key-1"), (order, "key-1"), ({**order, "total": "0"}, "key-1"), (order, None), (order, None)]
    ids = []
    for order, key in requests:
        answer = client.post("/orders", json=order, headers={"Idempotency-Key": key} if key else {})
        assert answer.status_code == EXPECTED, answer.text
        ids.append(answer.json().get("event_id"))
    if EXPECTED == 202:  # the same request is the same event, whatever else a client asks for
        assert ids[0] == ids[1] and len(set(ids)) == 4 and not any("o-1" in one for one in ids)
    assert client.post("/orders", json={"order_id": "o-2"}).status_code == 422
    assert "OrderCreated" in client.get("/openapi.json").text
"""


@pytest.fixture
async def somebody_listens(settings: Settings) -> None:
    exchange, queue = Exchange(settings.broker.exchange), Queue(settings.broker.exchange, {"x-queue-type": "classic"})
    async with a_broker(settings) as broker:
        await broker.declare(Topology((exchange,), (queue,), (Binding(exchange.name, queue.name, "order.*"),)))


@pytest.mark.usefixtures("somebody_listens")
def test_the_web_application_answers_once_the_broker_has_the_event(
    tmp_path: Path, variables: dict[str, str], the_example: Example
) -> None:
    ask_the_web_application(the_example("fastapi_publisher", tmp_path), variables, "202")


def test_the_web_application_says_so_when_nobody_listens(
    tmp_path: Path, variables: dict[str, str], the_example: Example
) -> None:
    ask_the_web_application(the_example("fastapi_publisher", tmp_path), variables, "503")


def ask_the_web_application(folder: Path, variables: dict[str, str], expected: str) -> None:
    (folder / "client.py").write_text(CLIENT.replace("EXPECTED", expected))

    done = script("client.py", folder, variables)

    assert done.returncode == 0, done.stderr


def test_the_list_of_examples_is_complete() -> None:
    told = (EXAMPLES / "README.md").read_text()

    assert all(f"`{folder.name}`" in told for folder in EXAMPLES.iterdir() if folder.is_dir())
