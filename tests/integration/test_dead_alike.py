"""Dead letters that are alike in everything: an operation that is broken off loses none of them, nor takes one more."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from morgue import a_desk, contents
from running import a_broker, take

from holdfast import Settings
from holdfast.broker import Queue, Topology, resting_queue
from holdfast.dead_letters import DeadLetters, Pace, Selection
from holdfast.events import Message

DEAD = "q.dead"
SENT = Pace(wait=0)


@asynccontextmanager
async def with_alike(count: int, folder: Path) -> AsyncIterator[DeadLetters]:
    """The tools on a broker in memory, and so many letters that are alike."""
    settings = Settings(broker={"url": f"memory://{folder.name}"}, idempotency={"url": "memory://"})
    async with a_broker(settings) as broker, a_desk(settings, folder, broker) as desk:
        await broker.declare(Topology(queues=(Queue("q"), resting_queue(DEAD))))
        await add(desk, count)
        await desk.read(DEAD)
        yield desk


async def add(desk: DeadLetters, count: int = 1, event_id: str = "e") -> None:
    for _ in range(count):
        await desk.broker.publish(Message(b"{}", "", DEAD, {"event-id": event_id}), timeout=5)


async def counted(desk: DeadLetters, queue: str) -> int:
    depth = await desk.broker.count(queue)
    return 0 if depth is None else depth.ready


async def test_a_replay_stopped_after_the_first_of_alike_letters_replays_the_others(tmp_path: Path) -> None:
    async with with_alike(3, tmp_path) as desk:
        operation = desk.replay(DEAD, Selection())
        stopped = await desk.work(operation, Pace(wait=0.05)).run()

        ended = await desk.work(stopped, SENT).run()

        there = await counted(desk, "q"), await counted(desk, DEAD)
    assert (stopped.state, stopped.counts) == ("stopped", {"sent": 1, "waiting": 2})
    assert (ended.counts, there) == ({"sent": 3}, (3, 0))


async def test_a_letter_put_back_after_its_replay_stays_when_the_replay_goes_on(tmp_path: Path) -> None:
    async with with_alike(1, tmp_path) as desk:
        await add(desk, event_id="other")
        await desk.read(DEAD)
        stopped = await desk.work(desk.replay(DEAD, Selection()), Pace(wait=0.05)).run()
        await add(desk)

        ended = await desk.work(stopped, SENT).run()

        left = await contents(desk, DEAD)
    assert (ended.counts, [letter.event_id for letter in left]) == ({"sent": 2}, ["e"])


@pytest.mark.parametrize(("there", "left"), [(3, 2), (2, 2), (1, 1)])
async def test_of_alike_letters_only_one_whose_removal_is_in_doubt_is_taken(
    there: int, left: int, tmp_path: Path
) -> None:
    """Of three the first was selected, published and taken, by a tool that was cut off before the queue answered. Where
    two are in the queue it was taken; where one is, somebody took another."""
    async with with_alike(3, tmp_path) as desk:
        operation = desk.replay(DEAD, Selection(limit=1))
        [item] = desk.journal.left(operation.id)
        desk.journal.sending(operation.id, [item.key])
        desk.journal.published(operation.id, [item.key])
        desk.journal.took(operation.id, [item.key], "sent")
        await take(desk.broker, DEAD, 3 - there)
        desk.journal.change(operation.id, "running")

        ended = await desk.work(desk.journal.operation(operation.id), SENT).run()

        after = await counted(desk, DEAD)
    assert (ended.counts, after) == ({"sent": 1}, left)


async def test_a_letter_published_and_not_taken_is_not_mistaken_for_one_left(tmp_path: Path) -> None:
    """Of two the first was published, and the tool killed before it took it: one of two goes, the other is sent."""
    async with with_alike(2, tmp_path) as desk:
        operation = desk.replay(DEAD, Selection())
        keys = [item.key for item in desk.journal.left(operation.id)]
        desk.journal.sending(operation.id, keys[:1])
        desk.journal.published(operation.id, keys[:1])

        ended = await desk.work(operation, SENT).run()

        there = await counted(desk, "q"), await counted(desk, DEAD)
    assert (ended.counts, there) == ({"sent": 2}, (1, 0))


async def test_what_is_surely_taken_is_settled_and_what_is_in_doubt_is_not(tmp_path: Path) -> None:
    async with with_alike(2, tmp_path) as desk:
        operation = desk.replay(DEAD, Selection())
        first, second = [item.key for item in desk.journal.left(operation.id)]
        desk.journal.took(operation.id, [first], "sent")
        in_doubt = desk.journal.keys(operation.id)

        await desk.work(operation, SENT).run()

        settled = desk.journal.keys(operation.id)
    assert in_doubt == {second: True, first: True} and list(in_doubt) == [second, first]
    assert settled == {first: False, second: False}
