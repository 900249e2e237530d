"""The page served to a real browser."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from morgue import a_desk
from playwright.async_api import Browser, Page, async_playwright

from holdfast import Settings
from holdfast.config import DashboardSettings
from holdfast.dashboard import Access, create_app, listen, serve
from holdfast.dead_letters import DeadLetters, Edit, Letter, Rehearsal, Selection
from holdfast.events import HoldfastError


@pytest.fixture
async def desk(settings: Settings, tmp_path: Path) -> AsyncIterator[DeadLetters]:
    async with a_desk(settings, tmp_path) as opened:
        yield opened


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(
            executable_path=os.environ.get("HOLDFAST_TEST_CHROMIUM"), args=["--no-sandbox"]
        )
        yield chromium
        await chromium.close()


@pytest.fixture
async def address(desk: DeadLetters) -> AsyncIterator[str]:
    listening: socket.socket = listen(DashboardSettings(port=0))
    url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    app = create_app(desk, Access(role="operator"), reader_of=lambda queue, to: read, rehearse=rehearse)
    serving = asyncio.create_task(serve(app, listening, started=url.set_result))
    yield (await url).rstrip("/")
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    listening.close()


def read(letter: Letter, edit: Edit | None) -> None:
    """What today's models make of a letter: one order is of another time."""
    if edit is None and b"o-3" in letter.message.body:
        raise HoldfastError("order: Input should be a number")


async def rehearse(queue: str, filters: Selection) -> Rehearsal:
    """What a run of the handler gives; test_dashboard.py has the real one."""
    return Rehearsal(2, 1, ["shop.CardDeclined: order o-3"], {"payment.processed": 2})


@pytest.fixture
async def page(browser: Browser, address: str) -> AsyncIterator[Page]:
    context = await browser.new_context(base_url=address, permissions=["clipboard-read", "clipboard-write"])
    opened = await context.new_page()
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    refused = "Failed to load resource: the server responded with a status of 4"
    opened.on(
        "console",
        lambda said: errors.append(said.text) if said.type == "error" and not said.text.startswith(refused) else None,
    )
    yield opened
    assert errors == [], "the page complained"
    await context.close()
