"""The page of examples/following in a real browser: what it says of an order before and after its confirmation."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.async_playwright import Axe
from commands import Running, environment
from following import a_board, until_listening
from pages import ROOT
from playwright.async_api import Browser, expect
from waiting import Log

from holdfast import Settings
from holdfast.testing.servers import free_port

EXAMPLE = ROOT / "examples" / "following"


@pytest.fixture
def variables(settings: Settings, redis_url: str, unique: str) -> dict[str, str]:
    return environment(
        HOLDFAST_BROKER__URL=settings.broker.url.get_secret_value(),
        HOLDFAST_BROKER__EXCHANGE=settings.broker.exchange,
        HOLDFAST_BROKER__MAX_DELAY="3600",
        HOLDFAST_IDEMPOTENCY__URL=redis_url,
        HOLDFAST_IDEMPOTENCY__PREFIX=unique,
    )


@pytest.fixture
def folder(tmp_path: Path, unique: str) -> Path:
    for file in EXAMPLE.glob("*.*"):
        (tmp_path / file.name).write_text(file.read_text().replace('Worker("', f'Worker("{unique}.'))
    return tmp_path


@pytest.fixture
def web(folder: Path, variables: dict[str, str]) -> Iterator[str]:
    """The web application, served."""
    port, log = free_port(), Log()
    command = [sys.executable, "-m", "uvicorn", "web:app", "--port", str(port)]
    serving = subprocess.Popen(command, cwd=folder, env=variables, stdout=log.output, stderr=log.output)
    log.follow()
    log.until(lambda text: "running on" in text)
    yield f"http://127.0.0.1:{port}"
    serving.kill()
    serving.wait()


async def test_a_page_says_when_the_confirmation_of_an_order_has_arrived(
    browser: Browser, web: str, folder: Path, variables: dict[str, str], redis_url: str, unique: str
) -> None:
    page = await browser.new_page(base_url=web)
    async with a_board(redis_url, unique) as board:
        with Running("run", "orders:worker", folder=folder, env=variables) as worker:
            await until_listening(board, 2)
            assert worker.stop() == 0

    await page.goto("/")
    await page.get_by_label("Order").fill("o-7")
    await page.get_by_role("button", name="Create").click()
    await expect(page.get_by_role("status")).to_have_text("Order created, its confirmation is on its way.")
    with Running("run", "orders:worker", folder=folder, env=variables) as worker:
        await expect(page.get_by_role("status")).to_have_text(re.compile("confirmation has arrived"), timeout=30_000)
        audit = await Axe().run(page)

        assert audit.violations_count == 0, audit.generate_report()
        assert worker.stop() == 0
