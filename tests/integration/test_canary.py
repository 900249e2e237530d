"""A secret that is put everywhere it may be is found nowhere it must not be."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import StringIO
from pathlib import Path

import structlog
from apps import copy_app
from commands import Running, environment, holdfast
from running import a_broker, a_worker, publish_all, running, take
from scraping import Site, get, site_of
from waiting import Facts

from holdfast import Context, Event, Publisher, PublishError, Reject, Retry, Settings, Worker, fixed
from holdfast.telemetry import Disconnected, Serving, configure_logging

CANARY = "c4n4ry"
URL = f"amqp://user:{CANARY}@127.0.0.1:1/"
SECRETS = (
    f"postgres://me:{CANARY}@db/x token={CANARY} {{'password': '{CANARY}'}} Authorization: Bearer {CANARY}{CANARY}"
)


class Paid(Event, type="paid"):
    order: str
    does: str = "fail"


class Failing(Exception):
    pass


async def test_no_secret_of_an_error_is_in_a_log_line_a_dead_letter_a_metric_or_a_fact(settings: Settings) -> None:
    facts, stream, root = Facts(), StringIO(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    configure_logging(settings.log.model_copy(update={"format": "json", "level": "DEBUG"}), stream)
    worker = a_worker(settings, facts)

    @worker.handler(Paid, retry=Retry(attempts=2, backoff=fixed(0.1, jitter=False)))
    async def handle(event: Paid, ctx: Context) -> None:
        ctx.log.warning(SECRETS, url=URL, api_key=CANARY, nested={"headers": {"authorization": CANARY}})
        logging.getLogger("theirs").warning("%s", SECRETS, extra={"db_password": CANARY})
        if event.does == "reject":
            raise Reject(SECRETS)
        try:
            raise OSError(SECRETS)
        except OSError as cause:
            raise Failing(SECRETS, URL) from cause

    try:
        async with running(worker, http=True):
            site = await site_of(facts)
            await publish_all(settings, [Paid(order="1"), Paid(order="2", does="reject")])
            await facts.settled("dead_lettered", count=2)
            page = (await asyncio.to_thread(get, f"{site.url}/metrics", "application/openmetrics-text"))[1]
            async with a_broker(settings) as broker:
                letters = await take(broker, f"{worker.name}.handle.dead", 2)
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.reset_defaults()

    assert "Failing" in stream.getvalue() and "holdfast_dead_letters_total" in page
    for place, text in {
        "the log": stream.getvalue(),
        "the metrics": page,
        "the dead letters": repr([letter.headers for letter in letters]),
        "the facts": repr(facts.all),
    }.items():
        assert CANARY not in text, place


async def test_no_password_of_a_broker_that_is_away_is_anywhere() -> None:
    away = Settings(
        broker={"url": URL, "connect_timeout": 0.5, "publish_timeout": 0.3},  # type: ignore[arg-type]
        idempotency={"url": f"redis://:{CANARY}@127.0.0.1:1/0", "password": CANARY, "timeout": 0.2},  # type: ignore[arg-type]
        http={"port": 0},  # type: ignore[arg-type]
    )
    facts = Facts()
    worker = a_worker(away, facts)

    @worker.handler(Paid)
    async def handle(event: Paid) -> None: ...

    errors = []
    async with starting(worker) as site:
        async with Publisher(away) as publisher:
            try:
                await publisher.publish(Paid(order="1"))
            except PublishError as error:
                errors.append(repr(error))
        pages = [await asyncio.to_thread(get, f"{site.url}/{page}") for page in ("metrics", "readyz", "livez")]
        await facts.until(Disconnected)

    assert errors and "127.0.0.1" in errors[0]
    settings_told = (repr(away), str(away), repr(worker.settings), away.model_dump_json())
    for text in (*settings_told, *errors, repr(pages), repr(facts.all)):
        assert CANARY not in text


@asynccontextmanager
async def starting(worker: Worker) -> AsyncIterator[Site]:
    """A worker that cannot become ready, and where it serves."""
    told: asyncio.Queue[Serving] = asyncio.Queue()
    worker.configure(listeners=[lambda fact: told.put_nowait(fact) if isinstance(fact, Serving) else None])
    task = asyncio.create_task(worker.run(http=True))
    try:
        yield Site((await told.get()).url)
    finally:
        worker.stop()
        await asyncio.gather(task, return_exceptions=True)


def test_no_password_is_in_what_commands_print(tmp_path: Path) -> None:
    copy_app("one_queue", tmp_path)
    secret = environment(
        HOLDFAST_BROKER__URL=URL,
        HOLDFAST_BROKER__PUBLISH_TIMEOUT="0.5",
        HOLDFAST_BROKER__CONNECT_TIMEOUT="0.5",
        HOLDFAST_IDEMPOTENCY__URL=f"redis://:{CANARY}@127.0.0.1:1/0",
        HOLDFAST_IDEMPOTENCY__PASSWORD=CANARY,
        HOLDFAST_LOG__LEVEL="DEBUG",
    )
    wrong = secret | {"HOLDFAST_BROKER__URL": f"http://user:{CANARY}@h/", "HOLDFAST_IDEMPOTENCY__URL": f"{CANARY}://x"}

    told = [
        holdfast("check", "app:worker", folder=tmp_path, env=secret),
        holdfast("publish", "a.b", "{}", folder=tmp_path, env=secret),
        holdfast("check", "app:worker", folder=tmp_path, env=wrong | {"HOLDFAST_IDEMPOTENCY__URL": "memory://"}),
    ]
    with Running("run", "app:worker", folder=tmp_path, env=secret) as worker:
        worker.until(lambda log: log.count("broker.disconnected") >= 2)
        log = worker.log

    assert [done.returncode for done in told] == [0, 1, 1]
    for text in (*(done.stdout + done.stderr for done in told), log):
        assert CANARY not in text
