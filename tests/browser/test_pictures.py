"""The pictures of the documentation: a day on which the bank was away. `make pictures` takes them anew."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from breaking import delete
from picturing import PICTURES
from playwright.async_api import Page, expect
from running import a_broker, running
from waiting import LIMIT, Facts

from holdfast import Event, Settings, Worker
from holdfast.broker import REGISTRY, work_queue
from holdfast.config import VERSION
from holdfast.dead_letters import DeadLetters
from holdfast.events import Message, uuid7

QUEUE = "billing.charge"
DEAD = f"{QUEUE}.dead"
MINUTES_AGO = [190, 60, 58, 52, 47, 41, 40, 37, 33, 31, 30, 28, 27, 25, 24, 22, 21, 20, 18, 17, 15, 14]
TRACEBACK = """Traceback (most recent call last):
  File "/app/bank.py", line 41, in charge
    answer = await self.client.post("/charges", json=charge)
  File "/app/bank.py", line 17, in post
    raise GatewayTimeout("no answer from the bank within 5 s")
bank.GatewayTimeout: no answer from the bank within 5 s

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/app/billing.py", line 28, in charge
    await bank.charge(event.customer_id, event.total)
  File "/app/bank.py", line 44, in charge
    raise BankAway("charge not made") from error
bank.BankAway: charge not made
"""


class OrderCreated(Event, type="order.created"):
    order_id: str
    customer_id: str
    total: float


def a_letter(number: int, minutes: int, **about: Any) -> Message:
    """Order `number`, dead so many minutes ago."""
    died = datetime.now(UTC) - timedelta(minutes=minutes)
    headers = {
        "event-id": uuid7(),
        "event-version": 1,
        "event-time": (died - timedelta(seconds=94)).isoformat(),
        "holdfast-reason": "exhausted",
        "holdfast-error-type": "bank.BankAway",
        "holdfast-error-message": "charge not made",
        "holdfast-traceback": TRACEBACK,
        "holdfast-fingerprint": "8c1f04be72d9a365",
        "holdfast-handler": "charge",
        "holdfast-queue": QUEUE,
        "holdfast-attempt": 6,
        "holdfast-first-failed-at": (died - timedelta(seconds=93)).isoformat(),
        "holdfast-failed-at": died.isoformat(),
        "holdfast-worker": f"billing-5f7c 1 holdfast/{VERSION}",
        "holdfast-exchange": "events",
        "holdfast-routing-key": "order.created",
    }
    order = OrderCreated(order_id=f"o-{number}", customer_id=f"c-{number % 7}", total=number * 1.5)
    body = about.pop("body", order.model_dump_json().encode())
    headers |= {f"holdfast-{name.replace('_', '-')}": value for name, value in about.items()}
    return Message(
        body, "", DEAD, headers, message_id=uuid7(), type="order.created", content_type="application/json",
        timestamp=died, app_id="shop",
    )  # fmt: skip


@pytest.fixture
async def letters(settings: Settings) -> AsyncIterator[None]:
    """Most died of the bank; two orders have no total, and one card was declined."""
    unreadable = {
        "reason": "unreadable", "error_type": "holdfast.events.DecodeError", "attempt": 1, "traceback": "",
        "error_message": "total: Field required", "fingerprint": "2d90ab13c47e5f86", "body": b'{"order_id": "o-77"}',
    }  # fmt: skip
    refused = {
        "reason": "refused", "error_type": "bank.CardDeclined", "attempt": 1, "traceback": "",
        "error_message": "card of customer c-3 has expired", "fingerprint": "f3375a08be419c2d",
    }  # fmt: skip
    await delete(settings, queues=(REGISTRY, QUEUE, DEAD))
    async with a_broker(settings) as broker:
        await broker.declare(work_queue(QUEUE, kind="quorum", exchange=settings.broker.exchange, keys=()))
        for number, minutes in enumerate(MINUTES_AGO, 2041):
            await broker.publish(a_letter(number, minutes), timeout=LIMIT)
        for number, minutes, about in ((1977, 171, unreadable), (1978, 169, unreadable), (2039, 96, refused)):
            await broker.publish(a_letter(number, minutes, **about), timeout=LIMIT)
    yield
    await delete(settings, queues=(REGISTRY, QUEUE, DEAD))


async def test_the_pictures_of_the_runbook(page: Page, letters: None, desk: DeadLetters, settings: Settings) -> None:
    """Each is as large as a window, and what it shows is asked for before it is taken."""
    desk.by = "ana@ops"
    go, began = asyncio.Event(), asyncio.Event()
    worker = Worker("billing", settings=settings, listeners=[Facts().record])

    @worker.handler(OrderCreated)
    async def charge(event: OrderCreated) -> None:
        if began.is_set():
            await go.wait()
        began.set()

    await desk.read(DEAD)
    await page.goto(f"/queues/{DEAD}")
    await page.get_by_text("Write a note").first.click()
    await page.get_by_label("Note").first.fill("The bank is informed and expects to be back at 15:30. Ana")
    await page.get_by_role("button", name="Keep").first.click()
    await expect(page.get_by_text("The bank is informed")).to_be_visible()
    await taken(page, "queue")
    await page.get_by_role("region", name="Letters").get_by_role("rowheader").get_by_role("link").first.click()
    await expect(page.get_by_role("heading", name="Traceback")).to_be_visible()
    await taken(page, "letter", width=900, height=1000)
    async with running(worker):
        await page.goto(f"/queues/{DEAD}/replay?reason=exhausted")
        await taken(page, "asked", height=640)
        await page.get_by_role("button", name="Replay 22").click()
        await expect(page.get_by_text("trying the first 10")).to_be_visible(timeout=30_000)
        await taken(page, "replay", height=460)
        go.set()
        await expect(page.locator(".progress .state")).to_have_text("done", timeout=30_000)
    await page.goto(f"/queues/{DEAD}/discard?reason=refused")
    await page.get_by_label("Type 1 to go on").fill("1")
    await page.get_by_role("button", name="Discard 1").click()
    await expect(page.locator(".progress .state")).to_have_text("done", timeout=30_000)
    await page.goto("/archives")
    await taken(page, "archives", height=400)

    assert all(path.stat().st_size < 120_000 for path in (PICTURES / "docs").glob("*.png"))


async def taken(page: Page, name: str, *, width: int = 1080, height: int = 760) -> None:
    await page.set_viewport_size({"width": width, "height": height})
    await page.screenshot(path=PICTURES / "docs" / f"{name}.png")
