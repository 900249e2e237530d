"""Every command and every sample in the README and the documentation is run, as a reader would run it."""

import os
import sys
from pathlib import Path

import pytest
from breaking import purge, purge_delays
from commands import script
from pages import ROOT, a_terminal, pages, steps
from running import a_broker

from holdfast import Settings
from holdfast.broker import Binding, Exchange, Queue, Topology
from holdfast.broker.ladder import UNROUTED


@pytest.fixture
def reader(settings: Settings, redis_url: str, tmp_path: Path) -> dict[str, str]:
    """A reader's environment: broker and Redis, a fresh folder, `holdfast` and `python` on the path."""
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOLDFAST_BROKER__URL": settings.broker.url.get_secret_value(),
        "HOLDFAST_BROKER__EXCHANGE": settings.broker.exchange,
        "HOLDFAST_BROKER__MAX_DELAY": "3600",
        "HOLDFAST_IDEMPOTENCY__URL": redis_url,
        "HOLDFAST_LOG__FORMAT": "json",
        "HOLDFAST_HTTP__PORT": "0",
        "HOLDFAST_DASHBOARD__PORT": "0",
        "HOLDFAST_DEAD_LETTERS__FOLDER": str(tmp_path / "dead-letters"),
    }


@pytest.mark.timeout(180)
@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
async def test_everything_on_the_page_works(
    page: Path, reader: dict[str, str], tmp_path: Path, settings: Settings
) -> None:
    async with a_broker(settings) as broker:  # somebody listens to whatever the page publishes
        exchange, queue = (
            Exchange(settings.broker.exchange),
            Queue(settings.broker.exchange, {"x-queue-type": "quorum"}),
        )
        await broker.declare(Topology((exchange,), (queue,), (Binding(exchange.name, queue.name, "#"),)))

    await purge(settings, UNROUTED)  # as on a broker of the reader's own, which no test has used before

    with a_terminal(tmp_path, reader) as run:
        for step in steps(page):
            run(step)

    await purge_delays(settings)


def test_the_web_application_of_the_documentation_publishes(
    reader: dict[str, str], tmp_path: Path, settings: Settings
) -> None:
    [web] = [step for step in steps(ROOT / "docs" / "publishing.md") if step.name == "web.py"]
    (tmp_path / "web.py").write_text(web.text)
    (tmp_path / "client.py").write_text(
        "from starlette.testclient import TestClient\n"
        "from web import app\n"
        "with TestClient(app) as client:\n"
        "    answer = client.post('/orders/o-1')\n"
        "    assert answer.status_code == 503 and 'no queue is bound' in answer.text, answer.text\n"
    )

    done = script("client.py", tmp_path, reader)

    assert done.returncode == 0, done.stderr


def test_the_wsgi_application_of_the_documentation_publishes(
    reader: dict[str, str], tmp_path: Path, settings: Settings
) -> None:
    samples = [step for step in steps(ROOT / "docs" / "publishing.md") if step.name in ("web.py", "shop_wsgi.py")]
    for sample in samples:
        (tmp_path / str(sample.name)).write_text(sample.text)
    (tmp_path / "client.py").write_text(
        "from shop_wsgi import app\n"
        "said = []\n"
        "[body] = app({'PATH_INFO': '/o-1'}, lambda status, headers: said.append(status))\n"
        "assert said[0].startswith('503') and b'no queue is bound' in body, (said, body)\n"
    )

    done = script("client.py", tmp_path, reader)

    assert (len(samples), done.returncode) == (2, 0), done.stderr
