"""The dead-letter page in a real browser: each flow, hostile letters, accessibility, keys, pictures.

`make test-browser` runs these: they need Chromium, found or installed by scripts/browser.py.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from axe_playwright_python.async_playwright import Axe
from breaking import delete
from morgue import Morgue, a_desk, contents
from playwright.async_api import Browser, Page, async_playwright, expect
from running import a_broker, running

from holdfast import Settings
from holdfast.broker import REGISTRY, Queue, Topology
from holdfast.config import DashboardSettings
from holdfast.dashboard import Access, create_app, serve
from holdfast.dashboard.serving import listen
from holdfast.dead_letters import DeadLetters
from holdfast.events import Message

PICTURES = Path(os.environ.get("HOLDFAST_TEST_PICTURES", "pictures"))
HOSTILE = [
    b"<script>document.title = 'owned'</script>",
    b"\x1b[31mred \x00 \xe2\x80\xae reversed",
    b"\xff\xfe\x00binary" * 40,
    b'{"long": "' + b"x" * 1_000_000 + b'"}',
]


@pytest.fixture
async def morgue(settings: Settings, unique: str) -> Morgue:
    await delete(settings, queues=(REGISTRY,))  # only this test's queues are to be in the pictures
    return Morgue(settings, unique)


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
    serving = asyncio.create_task(serve(create_app(desk, Access(role="operator")), listening, started=url.set_result))
    yield (await url).rstrip("/")
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    listening.close()


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


async def looked_at(page: Page, name: str) -> None:
    """Keep a picture, and fail for what axe finds, light and dark."""
    for scheme in ("light", "dark"):
        await page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        await page.screenshot(path=PICTURES / f"{name}-{scheme}.png", full_page=True)
        found = await Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
    await page.emulate_media(color_scheme="light")


async def test_from_the_queues_to_a_letter_and_replayed(page: Page, morgue: Morgue, desk: DeadLetters) -> None:
    await morgue.fill("o-1", "o-2", "o-3")
    morgue.charge.mended = True

    await page.goto("/")
    await looked_at(page, "queues")
    await page.get_by_role("link", name=morgue.dead).click()
    await expect(page.get_by_role("heading", name="By what they died of")).to_be_visible()
    await looked_at(page, "queue")
    await page.get_by_role("region", name="Letters").get_by_role("link").first.click()
    await expect(page.get_by_role("heading", name="Traceback")).to_be_visible()
    await page.get_by_role("button", name="Copy").nth(1).click()
    assert "order" in await page.evaluate("navigator.clipboard.readText()")
    await looked_at(page, "letter")
    await page.keyboard.press("u")
    async with running(morgue.worker()):
        await page.get_by_role("link", name="Replay…").click()
        await looked_at(page, "replay")
        await page.get_by_role("button", name="Replay 3").click()
        await expect(page.locator("[data-told=state]")).to_have_text("done", timeout=30_000)
    await expect(page.get_by_text("3 handled")).to_be_visible()
    await looked_at(page, "operation")

    assert morgue.charge.effects == {"o-1": 1, "o-2": 1, "o-3": 1}


async def test_a_letter_is_edited_and_one_discarded(page: Page, morgue: Morgue, desk: DeadLetters) -> None:
    await morgue.fill("o-1", "o-2")
    first, second = await contents(desk, morgue.dead)
    morgue.charge.mended = True

    async with running(morgue.worker()):
        await page.goto(f"/queues/{morgue.dead}/letters/{first.key}/edit")
        await page.get_by_label("Body").fill('{"order": "o-9"}')
        await looked_at(page, "edit")
        await page.get_by_role("button", name="Replay the edited event").click()
        await expect(page.locator("[data-told=state]")).to_have_text("done", timeout=30_000)
    await page.goto(f"/queues/{morgue.dead}/discard?id={second.key}")
    await page.get_by_label("Type 1 to go on").fill("1")
    await looked_at(page, "discard")
    await page.get_by_role("button", name="Discard 1").click()
    await expect(page.locator("[data-told=state]")).to_have_text("done", timeout=30_000)
    await page.goto("/audit")
    await looked_at(page, "audit")

    assert morgue.charge.effects == {"o-9": 1}
    assert await contents(desk, morgue.dead) == []


async def test_notes_filters_and_keys(page: Page, morgue: Morgue, desk: DeadLetters) -> None:
    await morgue.fill("o-1", "o-2")
    await desk.read(morgue.dead)

    await page.goto(f"/queues/{morgue.dead}")
    await page.get_by_text("Write a note").click()
    await page.get_by_label("Note").fill("the bank knows")
    await page.get_by_role("button", name="Keep").click()
    await expect(page.get_by_text("the bank knows")).to_be_visible()
    await page.keyboard.press("/")
    await page.keyboard.type("nothing like it")
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("No letter is meant by that")).to_be_visible()
    await looked_at(page, "empty")
    await page.goto(f"/queues/{morgue.dead}")
    await page.locator("main").focus()
    await page.keyboard.press("j")
    await page.keyboard.press("j")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="History")).to_be_visible()
    await page.keyboard.press("?")
    await expect(page.get_by_role("heading", name="Keys")).to_be_visible()


@pytest.mark.parametrize("body", HOSTILE, ids=["script", "control", "binary", "1 MB"])
async def test_a_hostile_letter_does_nothing(
    page: Page, settings: Settings, desk: DeadLetters, unique: str, body: bytes
) -> None:
    queue = f"{unique}.dead"
    async with a_broker(settings) as broker:
        await broker.declare(Topology(queues=(Queue(queue, {"x-queue-type": "quorum"}),)))
        headers = {"holdfast-error-message": "<img src=x onerror=alert(1)>"}
        await broker.publish(Message(body, "", queue, headers=headers, type="odd"), timeout=30)
    [letter] = await contents(desk, queue)

    await page.goto(f"/queues/{queue}/letters/{letter.key}")

    assert "owned" not in await page.title()
    assert await page.locator("main img, main script").count() == 0
    await looked_at(page, "hostile")


async def test_a_broker_that_is_away_is_told(page: Page, desk: DeadLetters) -> None:
    await page.goto("/queues/there-is-none")

    await expect(page.get_by_role("heading", name="That did not work")).to_be_visible()
    await looked_at(page, "failed")
