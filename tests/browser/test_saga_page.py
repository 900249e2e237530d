"""The page of a saga in a real browser: its diagram, drawn, with the stage lit."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from axe_playwright_python.async_playwright import Axe
from compensating import a_saga_that_compensates
from picturing import PICTURES
from playwright.async_api import Page, expect

from holdfast.config import DashboardSettings
from holdfast.dashboard import Access, create_app, listen, serve
from holdfast.dead_letters import DeadLetters


@pytest.fixture
async def address(desk: DeadLetters, tmp_path: Path, unique: str) -> AsyncIterator[str]:
    """A page over a database with one saga, which compensates."""
    sagas, _ = await a_saga_that_compensates(tmp_path, unique)
    listening, url = listen(DashboardSettings(port=0)), asyncio.get_running_loop().create_future()
    app = create_app(desk, Access(role="operator"), sagas=sagas)
    serving = asyncio.create_task(serve(app, listening, started=url.set_result))
    yield (await url).rstrip("/")
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    listening.close()


async def test_the_diagram_of_a_saga_is_drawn_with_its_stage_lit(page: Page) -> None:
    await page.goto("/sagas/fulfilment")
    await page.get_by_role("link", name="<eu/o-1>").click()

    lit = page.locator(".graph .here")
    await expect(lit.locator(".name")).to_have_text("compensating")
    colours = "element => getComputedStyle(element).stroke"
    assert await lit.locator("rect").evaluate(colours) != await page.locator(".stage:not(.here) rect").first.evaluate(
        colours
    )
    await expect(page.locator(".graph .next text")).to_have_text(["all is undone", "no answer in time"])
    for scheme in ("light", "dark"):
        await page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        await page.screenshot(path=PICTURES / f"saga-{scheme}.png", full_page=True)
        found = await Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
