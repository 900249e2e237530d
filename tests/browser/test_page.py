"""The dead-letter page in a real browser: each flow, hostile letters, accessibility, keys.

`make test-browser` runs these: they need Chromium, found or installed by scripts/browser.py.
"""

import pytest
from axe_playwright_python.async_playwright import Axe
from breaking import delete
from morgue import Morgue, contents
from picturing import PICTURES
from playwright.async_api import Page, expect
from running import a_broker, running

from holdfast import Settings
from holdfast.broker import REGISTRY, Queue, Topology
from holdfast.dead_letters import DeadLetters
from holdfast.events import Message

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
    await page.get_by_role("region", name="Letters").get_by_role("rowheader").get_by_role("link").first.click()
    await expect(page.get_by_role("heading", name="Traceback")).to_be_visible()
    await page.get_by_role("button", name="Copy").nth(1).click()
    assert "order" in await page.evaluate("navigator.clipboard.readText()")
    await looked_at(page, "letter")
    await page.keyboard.press("u")
    async with running(morgue.worker()):
        await page.get_by_role("link", name="Replay…").click()
        await looked_at(page, "replay")
        await page.get_by_role("button", name="Replay 3").click()
        await expect(page.locator(".progress .state")).to_have_text("done", timeout=30_000)
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
        await expect(page.locator(".progress .state")).to_have_text("done", timeout=30_000)
    await page.goto(f"/queues/{morgue.dead}/discard?id={second.key}")
    await page.get_by_label("Type 1 to go on").fill("1")
    await looked_at(page, "discard")
    await page.get_by_role("button", name="Discard 1").click()
    await expect(page.locator(".progress .state")).to_have_text("done", timeout=30_000)
    await page.goto("/audit")
    await looked_at(page, "audit")

    assert morgue.charge.effects == {"o-9": 1}
    assert await contents(desk, morgue.dead) == []


async def test_a_replay_tries_a_few_first_and_is_paused_and_resumed(
    page: Page, morgue: Morgue, desk: DeadLetters
) -> None:
    """One letter, then ten; the worker holds those ten, so that they can be looked at."""
    await morgue.fill(*(f"o-{n}" for n in range(14)))
    await desk.read(morgue.dead)
    morgue.charge.mended, morgue.charge.lets = True, 1

    async with running(morgue.worker()):
        await page.goto(f"/queues/{morgue.dead}/replay")
        await page.get_by_label("a second").fill("100")
        await page.get_by_role("button", name="Dry run").click()
        await expect(page.get_by_text("14 letters would go to")).to_be_visible()
        await looked_at(page, "dry-run")
        await page.get_by_role("button", name="Replay 14").click()
        await expect(page.get_by_text("trying the first 10")).to_be_visible(timeout=30_000)
        await looked_at(page, "canary")
        await page.get_by_role("button", name="Pause").click()
        await expect(page.locator(".progress .state")).to_have_text("paused", timeout=30_000)
        morgue.charge.go.set()
        await page.get_by_text("Resume at another pace").click()
        await looked_at(page, "paused")
        await page.get_by_label("all at once").check()
        await page.get_by_role("button", name="Resume at this pace").click()
        await expect(page.locator(".progress .state")).to_have_text("done", timeout=30_000)
    await expect(page.get_by_text("14 handled")).to_be_visible()

    assert morgue.charge.effects == {f"o-{n}": 1 for n in range(14)}


async def test_what_was_discarded_is_restored_from_its_archive(page: Page, morgue: Morgue, desk: DeadLetters) -> None:
    await page.goto("/archives")
    await expect(page.get_by_text("Nothing has been taken off a queue yet")).to_be_visible()
    await looked_at(page, "no-archives")
    await morgue.fill("o-1", "o-2", "o-3")
    before = {letter.message.body for letter in await contents(desk, morgue.dead)}

    await page.goto(f"/queues/{morgue.dead}/discard")
    await page.get_by_label("Type 3 to go on").fill("3")
    await page.get_by_role("button", name="Discard 3").click()
    await expect(page.locator(".progress .state")).to_have_text("done", timeout=30_000)
    emptied = await contents(desk, morgue.dead)
    await page.get_by_role("link", name="Archives").click()
    await looked_at(page, "archives")
    async with page.expect_download() as kept:
        await page.get_by_role("link", name=morgue.dead).click()
    lines = (await (await kept.value).path()).read_text().splitlines()
    await page.get_by_role("button", name="Restore").click()
    await expect(page.locator(".progress .state")).to_have_text("done", timeout=30_000)
    await expect(page.get_by_text("3 restored")).to_be_visible()
    await looked_at(page, "restored")

    assert (emptied, len(lines)) == ([], 3)
    assert {letter.message.body for letter in await contents(desk, morgue.dead)} == before


async def test_what_if_reads_the_letters_and_runs_the_handler(page: Page, morgue: Morgue, desk: DeadLetters) -> None:
    await morgue.fill("o-1", "o-2", "o-3")
    await desk.read(morgue.dead)

    await page.goto(f"/queues/{morgue.dead}")
    await page.get_by_role("link", name="Dry run").click()
    await expect(page.get_by_text("2 would be read, 1 would not")).to_be_visible()
    await page.get_by_role("button", name="Run it").click()  # the browser wants it ticked first
    await page.get_by_label("I know that it really runs").check()
    await page.get_by_role("button", name="Run it").click()
    await expect(page.get_by_text("2 would be handled, 1 would not")).to_be_visible(timeout=30_000)
    await looked_at(page, "what-if")


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
    await expect(page.get_by_text("No letter matches")).to_be_visible()
    await looked_at(page, "empty")
    await page.goto(f"/queues/{morgue.dead}")
    await page.locator("main").focus()
    await page.keyboard.press("j")
    await page.keyboard.press("j")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="History")).to_be_visible()
    await page.keyboard.press("?")
    await expect(page.get_by_role("heading", name="Keys")).to_be_visible()


async def test_on_a_phone_each_letter_is_a_card_that_can_be_read(page: Page, morgue: Morgue, desk: DeadLetters) -> None:
    await morgue.fill(*(f"o-{n}" for n in range(50)))
    await desk.read(morgue.dead)
    await page.set_viewport_size({"width": 390, "height": 844})

    for name, address in (("letters", f"/queues/{morgue.dead}"), ("queues", "/"), ("search", "/search?payload=o-7")):
        await page.goto(address)
        await looked_at(page, f"phone-{name}")
        assert await page.evaluate("document.documentElement.scrollWidth") <= 390
    await page.goto(f"/queues/{morgue.dead}")
    error = await page.locator("td.error").first.bounding_box()

    assert error and error["width"] > 250
    assert await page.evaluate("document.documentElement.scrollHeight") < 12_000


async def test_on_a_phone_the_letters_are_sorted(page: Page, morgue: Morgue, desk: DeadLetters) -> None:
    await morgue.fill("o-1", "o-2", "o-3")
    await desk.read(morgue.dead)
    await page.goto(f"/queues/{morgue.dead}")
    assert not await page.locator(".sorts").is_visible()
    await page.set_viewport_size({"width": 390, "height": 844})

    await page.locator(".sorts").get_by_role("link", name="oldest").click()

    assert "sort=oldest" in page.url
    assert await page.locator(".sorts [aria-current]").inner_text() == "oldest"


async def test_letters_are_selected_and_replayed_together(page: Page, morgue: Morgue, desk: DeadLetters) -> None:
    await morgue.fill("o-1", "o-2", "o-3")
    await desk.read(morgue.dead)
    morgue.charge.mended = True

    async with running(morgue.worker()):
        await page.goto(f"/queues/{morgue.dead}")
        await page.get_by_label("Select all on this page").check()
        await page.locator("[name=id]").first.uncheck()
        await page.get_by_role("button", name="Replay…").click()
        await page.get_by_role("button", name="Replay 2").click()
        await expect(page.locator(".progress .state")).to_have_text("done", timeout=30_000)

    assert morgue.charge.effects.total() == 2


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
