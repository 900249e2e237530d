"""The pages of sagas next to the dead letters: what rests where, and one saga with its steps and its stages."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from browsing import a_visitor
from compensating import a_saga_that_compensates
from morgue import a_desk

from holdfast import Settings
from holdfast.dead_letters import DeadLetters


@pytest.fixture
async def desk(settings: Settings, tmp_path: Path) -> AsyncIterator[DeadLetters]:
    async with a_desk(settings, tmp_path) as opened:
        yield opened


async def test_the_pages_say_where_each_saga_stands_and_by_which_events(
    desk: DeadLetters, tmp_path: Path, unique: str
) -> None:
    of_database, event_ids = await a_saga_that_compensates(tmp_path, unique)

    async with a_visitor(desk, sagas=of_database) as visitor:
        kinds = (await visitor.get("/sagas")).text
        listed = (await visitor.get("/sagas/fulfilment?stage=compensating")).text
        none = (await visitor.get("/sagas/fulfilment?stage=stuck")).text
        shown = (await visitor.get("/sagas/fulfilment/%3Ceu/o-1%3E")).text
        missing = await visitor.get("/sagas/fulfilment/o-7")

    assert "fulfilment" in kinds and "compensating" in kinds
    assert "&lt;eu/o-1&gt;" in listed and 'href="/sagas/fulfilment/%3Ceu/o-1%3E"' in listed
    assert "not shipped: no van" in listed and "There is none in this stage" in none
    assert all(event_id in shown for event_id in event_ids)
    assert "refund.payment" in shown and "awaits <code>payment.refunded</code>" in shown
    assert 'class="stage here" aria-current="step"' in shown and shown.count('aria-current="step"') == 1
    assert missing.status_code == 400 and "there is no saga fulfilment" in missing.text


async def test_without_a_database_there_are_no_pages_of_sagas(desk: DeadLetters) -> None:
    async with a_visitor(desk) as visitor:
        queues = (await visitor.get("/")).text
        sagas = await visitor.get("/sagas")

    assert "/sagas" not in queues
    assert sagas.status_code == 404 and "HOLDFAST_SQL__URL" in sagas.text
