"""The keys of an ordered handler on the dead-letter page: what an operator does about one that stands still."""

from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from browsing import a_visitor
from morgue import a_desk
from running import a_worker, publish_all, running
from waiting import Facts, eventually

from holdfast import Event, Reject, RetryLater, Settings
from holdfast.consumer.ordering.asking import ask_owner
from holdfast.dashboard import Access
from holdfast.dead_letters import DeadLetters

pytestmark = pytest.mark.server

HELD, LATE = "<held>&1", "late"


class Shop:
    """An ordered handler with a key that a dead letter holds, and one that waits for its retry."""

    def __init__(self, settings: Settings, unique: str) -> None:
        self.facts = Facts()
        self.handled: dict[str, list[int]] = defaultdict(list)
        self.dead = f"{settings.broker.exchange}.w.project.dead"
        self._settings = settings
        self._unique = unique
        self._failed: set[str] = set()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        class Placed(Event, type=f"{self._unique}.placed", key="order"):
            order: str
            number: int

        worker = a_worker(self._settings, self.facts)

        @worker.handler(Placed, ordered=True)
        async def project(event: Any) -> None:
            if event.number == 0 and event.order not in self._failed:
                self._failed.add(event.order)
                raise Reject("no such order") if event.order == HELD else RetryLater(3600)
            self.handled[event.order].append(event.number)

        async with running(worker):
            await publish_all(self._settings, [Placed(order=key, number=n) for n in range(3) for key in (HELD, LATE)])
            await eventually(self._waiting, {HELD: 3, LATE: 3})
            yield

    async def _waiting(self) -> dict[str, int]:
        answer = await ask_owner(self._settings, self.dead.removesuffix(".dead"), "list")
        return {one["key"]: one["waiting"] for one in answer["keys"]}


@pytest.fixture
async def desk(settings: Settings, tmp_path: Path) -> AsyncIterator[DeadLetters]:
    async with a_desk(settings, tmp_path) as opened:
        yield opened


@pytest.fixture
def shop(settings: Settings, unique: str) -> Shop:
    return Shop(settings, unique)


async def test_keys_that_wait_are_on_a_page_of_their_queue(shop: Shop, desk: DeadLetters) -> None:
    async with shop.open(), a_visitor(desk) as visitor:
        queue = await visitor.get(f"/queues/{shop.dead}")
        page = await visitor.get(f"/queues/{shop.dead}/keys")

    assert f'href="/queues/{shop.dead}/keys"' in queue.text
    assert "&lt;held&gt;&amp;1" in page.text and "<held>" not in page.text
    assert f'href="/queues/{shop.dead}/replay?key={quote(HELD)}"' in page.text
    assert f'href="/queues/{shop.dead}/keys/skip?key={quote(HELD)}"' in page.text
    assert f'href="/queues/{shop.dead}/keys/retry?key={LATE}"' in page.text


async def test_a_key_is_skipped_once_that_is_confirmed(shop: Shop, desk: DeadLetters) -> None:
    async with shop.open(), a_visitor(desk) as visitor:
        asked = await visitor.get(f"/queues/{shop.dead}/keys/skip?key={quote(HELD)}")
        before = [*shop.handled[HELD]]
        done = await visitor.post(f"/queues/{shop.dead}/keys/skip?key={quote(HELD)}")
        await eventually(lambda: shop.handled[HELD], [1, 2])
        again = await visitor.post(f"/queues/{shop.dead}/keys/skip?key={quote(HELD)}")

    assert "<b>3</b> events in the ledger" in asked.text and before == []
    assert done.status_code == 303 and done.headers["location"] == f"/queues/{shop.dead}/keys"
    assert again.status_code == 400 and "no event waits for key" in again.text
    [act] = desk.journal.acts()
    assert (act.action, act.queue, act.detail) == ("skip key", shop.dead, HELD)


async def test_a_retry_of_a_key_is_made_now_once_that_is_confirmed(shop: Shop, desk: DeadLetters) -> None:
    async with shop.open(), a_visitor(desk) as visitor:
        await visitor.get(f"/queues/{shop.dead}/keys/retry?key={LATE}")
        await visitor.post(f"/queues/{shop.dead}/keys/retry?key={LATE}")

        await eventually(lambda: shop.handled[LATE], [0, 1, 2])


async def test_who_may_only_look_sees_keys_and_changes_none(shop: Shop, desk: DeadLetters) -> None:
    async with shop.open(), a_visitor(desk, Access(role="viewer")) as visitor:
        page = await visitor.get(f"/queues/{shop.dead}/keys")
        answer = await visitor.post(f"/queues/{shop.dead}/keys/skip?key={quote(HELD)}")

    assert "&lt;held&gt;" in page.text and "Skip…" not in page.text and "Replay" not in page.text
    assert answer.status_code == 403 and shop.handled[HELD] == []


async def test_a_key_is_not_skipped_by_a_form_of_another_session(shop: Shop, desk: DeadLetters) -> None:
    async with shop.open(), a_visitor(desk) as visitor:
        await visitor.get(f"/queues/{shop.dead}/keys/skip?key={quote(HELD)}")
        answer = await visitor.post(f"/queues/{shop.dead}/keys/skip?key={quote(HELD)}", csrf="0" * 64)

    assert answer.status_code == 403 and shop.handled[HELD] == []


async def test_keys_that_nobody_owns_are_reported_at_once(shop: Shop, desk: DeadLetters, unique: str) -> None:
    async with shop.open():
        pass

    async with a_visitor(desk) as visitor:
        page = await visitor.get(f"/queues/{shop.dead}/keys")

    assert page.status_code == 503 and "nobody owns this queue" in page.text


async def test_a_queue_that_is_not_ordered_has_no_page_of_keys(shop: Shop, desk: DeadLetters, unique: str) -> None:
    worker = a_worker(desk.settings, Facts(), "plain")
    worker.handler("plain.event", name="plain")(_ignore)

    async with running(worker), a_visitor(desk) as visitor:
        queue = await visitor.get(f"/queues/{unique}.plain.plain.dead")
        page = await visitor.get(f"/queues/{unique}.plain.plain.dead/keys")

    assert queue.status_code == 200 and "Keys that wait" not in queue.text
    assert page.status_code == 404


async def _ignore(event: dict[str, Any]) -> None:
    """Handle nothing."""
