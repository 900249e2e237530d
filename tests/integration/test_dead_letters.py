"""Dead letters: read, grouped, replayed, discarded and restored, on a real broker."""

import asyncio
import uuid
from pathlib import Path

import pytest
from breaking import a_channel
from morgue import QUICK, Morgue, a_desk, contents, replay
from running import a_broker, running, take
from waiting import eventually

from holdfast import ConfigurationError, QueueInUse, Settings
from holdfast.broker import Held, Topology, resting_queue, work_queue
from holdfast.dead_letters import Edit, Pace, Selection
from holdfast.events import Message, Receipt, ReceiptOutcome


@pytest.fixture
def morgue(settings: Settings, unique: str) -> Morgue:
    return Morgue(settings, unique)


def orders(count: int) -> list[str]:
    return [f"o-{n}" for n in range(count)]


async def test_dead_letters_are_found_without_naming_their_queue(morgue: Morgue, tmp_path: Path) -> None:
    await morgue.fill("a", "b")

    async with a_desk(morgue.settings, tmp_path) as desk:
        found = {place.queue: place for place in await desk.queues()}

    assert found[morgue.dead].letters == 2
    assert found[morgue.dead].oldest is not None
    assert found[f"{morgue.settings.broker.exchange}.w.sibling.dead"].letters == 0


async def test_looking_where_letters_are_leaves_them_in_their_order(morgue: Morgue, tmp_path: Path) -> None:
    await morgue.fill(*orders(5))

    async with a_desk(morgue.settings, tmp_path / "one") as one, a_desk(morgue.settings, tmp_path / "two") as two:
        before = [letter.key for letter in await contents(one, morgue.dead)]
        [place] = await two.queues([morgue.queue])
        after = [letter.key for letter in await contents(one, morgue.dead)]

    assert after == before
    assert (place.letters, place.oldest is not None) == (5, True)


async def test_letters_with_the_same_cause_are_one_group(morgue: Morgue, tmp_path: Path) -> None:
    await morgue.fill(*orders(5))

    async with a_desk(morgue.settings, tmp_path) as desk:
        index = await desk.read(morgue.dead)
        [group] = index.groups()
        letters = await contents(desk, morgue.dead)

    assert (group.count, group.reason, group.handlers) == (5, "exhausted", ("charge",))
    assert "CardDeclined" in group.error_type
    assert sum(group.trend) == 5
    assert {letter.target for letter in letters} == {morgue.queue}
    assert letters[0].chain == [letters[0].error_type] == list(group.chain)


async def test_a_replay_runs_each_letter_once_as_a_first_attempt_and_tells_no_sibling(
    morgue: Morgue, tmp_path: Path
) -> None:
    await morgue.fill(*orders(30))
    morgue.charge.mended = True
    morgue.charge.attempts.clear()
    seen = dict(morgue.siblings)

    async with a_desk(morgue.settings, tmp_path) as desk, running(morgue.worker()):
        done = await replay(desk, morgue.dead)
        left = await contents(desk, morgue.dead)

    assert (done.state, dict(done.counts)) == ("done", {"handled": 30})
    assert morgue.charge.effects == dict.fromkeys(orders(30), 1)
    assert set(morgue.charge.attempts) == {1}
    assert dict(morgue.siblings) == seen
    assert left == []


async def test_a_replay_stops_after_the_first_letter_when_the_failure_returns(morgue: Morgue, tmp_path: Path) -> None:
    await morgue.fill(*orders(30))

    async with a_desk(morgue.settings, tmp_path) as desk, running(morgue.worker(attempts=5)):
        stopped = await replay(desk, morgue.dead)
        left = await contents(desk, morgue.dead)

    assert stopped.state == "stopped"
    assert sum(1 for runs in morgue.charge.runs.values() if runs > 1) == 1
    assert len(left) >= 29


async def test_a_letter_that_comes_back_dead_says_so_and_is_not_swept_up_again(morgue: Morgue, tmp_path: Path) -> None:
    await morgue.fill(*orders(3))

    async with a_desk(morgue.settings, tmp_path) as desk, running(morgue.worker()):
        ended = await replay(desk, morgue.dead, Pace(canary=False, keep_going=True, wait=20))
        left = await contents(desk, morgue.dead)

    assert dict(ended.counts) == {"failed": 3}
    assert [letter.replayed for letter in left] == [ended.id] * 3
    assert morgue.charge.runs == dict.fromkeys(orders(3), 2)


async def test_letters_that_arrive_after_a_replay_was_fixed_stay(morgue: Morgue, tmp_path: Path) -> None:
    await morgue.fill(*orders(3))
    async with a_desk(morgue.settings, tmp_path) as desk:
        await desk.read(morgue.dead)
        operation = desk.replay(morgue.dead, Selection())
        await morgue.fill("late")
        morgue.charge.mended = True

        async with running(morgue.worker()):
            done = await desk.work(operation, QUICK).run()
        left = await contents(desk, morgue.dead)

    assert dict(done.counts) == {"handled": 3}
    assert [letter.message.body for letter in left] == [b'{"order":"late"}']


async def test_only_what_is_selected_is_replayed_and_the_rest_keeps_its_order(morgue: Morgue, tmp_path: Path) -> None:
    await morgue.fill(*orders(10))
    morgue.charge.mended = True
    async with a_desk(morgue.settings, tmp_path) as desk, running(morgue.worker()):
        before = await contents(desk, morgue.dead)
        chosen = [before[1].key, before[4].key[:10], before[7].event_id]

        done = await desk.work(desk.replay(morgue.dead, Selection(id=tuple(chosen))), QUICK).run()

        left = await contents(desk, morgue.dead)
    assert dict(done.counts) == {"handled": 3}
    assert [letter.key for letter in left] == [letter.key for n, letter in enumerate(before) if n not in (1, 4, 7)]


async def test_without_a_worker_a_replay_stops_after_its_first_letter(morgue: Morgue, tmp_path: Path) -> None:
    await morgue.fill(*orders(20))

    async with a_desk(morgue.settings, tmp_path) as desk:
        stopped = await replay(desk, morgue.dead, Pace(wait=0.3))
        left = await contents(desk, morgue.dead)

    assert (stopped.state, "is a worker running" in stopped.detail) == ("stopped", True)
    assert len(left) == 19


async def test_where_no_outcome_is_waited_for_no_letter_goes_first(morgue: Morgue, tmp_path: Path) -> None:
    await morgue.fill(*orders(20))

    async with a_desk(morgue.settings, tmp_path) as desk:
        sent = await replay(desk, morgue.dead, Pace(wait=0))
        left = await contents(desk, morgue.dead)

    assert (sent.state, dict(sent.counts), left) == ("waiting", {"sent": 20}, [])


async def test_a_stopped_replay_goes_on_where_it_was_and_hears_what_was_said_meanwhile(
    morgue: Morgue, tmp_path: Path
) -> None:
    await morgue.fill(*orders(20))
    morgue.charge.mended = True
    async with a_desk(morgue.settings, tmp_path) as desk:
        stopped = await replay(desk, morgue.dead, Pace(wait=0.3))
        async with running(morgue.worker()):
            await morgue.charge.effects.until(lambda: morgue.charge.effects.total() == 1)

            done = await desk.work(stopped, QUICK).run()

    assert (done.state, dict(done.counts)) == ("done", {"handled": 20})
    assert morgue.charge.effects == dict.fromkeys(orders(20), 1)


async def test_a_replay_at_a_rate_can_be_paused_resumed_and_cancelled(morgue: Morgue, tmp_path: Path) -> None:
    await morgue.fill(*orders(40))
    morgue.charge.mended = True
    slow = Pace(rate=20, canary=False, wait=20)
    async with a_desk(morgue.settings, tmp_path) as desk, running(morgue.worker()):
        await desk.read(morgue.dead)
        operation = desk.replay(morgue.dead, Selection())

        async def until_asked(wish: str, count: int) -> str:
            running_ = asyncio.create_task(desk.work(desk.journal.operation(operation.id), slow).run())
            await morgue.charge.effects.until(lambda: morgue.charge.effects.total() >= count)
            desk.ask(operation, wish)  # type: ignore[arg-type]
            return (await running_).state

        states = [await until_asked("pause", 5), await until_asked("cancel", 12)]
        left = await contents(desk, morgue.dead)

    replayed = desk_counts = sum(morgue.charge.effects.values())
    assert states == ["paused", "cancelled"]
    assert desk_counts < 40 and len(left) + replayed >= 40 - 5
    assert max(morgue.charge.effects.values()) == 1


async def test_two_operators_replay_the_same_letters_at_once_and_each_is_replayed_once(
    morgue: Morgue, tmp_path: Path
) -> None:
    await morgue.fill(*orders(60))
    morgue.charge.mended = True
    async with (
        a_desk(morgue.settings, tmp_path / "one") as one,
        a_desk(morgue.settings, tmp_path / "two") as two,
        running(morgue.worker()),
    ):
        await one.read(morgue.dead)
        await two.read(morgue.dead)
        works = [desk.work(desk.replay(morgue.dead, Selection()), Pace(canary=False, wait=20)) for desk in (one, two)]

        ended = await asyncio.gather(*(work.run() for work in works))

    assert morgue.charge.effects == dict.fromkeys(orders(60), 1)
    counts = [dict(operation.counts) for operation in ended]
    assert sum(count.get("handled", 0) for count in counts) == 60
    assert sum(count.get("gone", 0) for count in counts) == 60


async def test_what_is_discarded_is_in_the_archive_to_the_byte_and_can_be_restored(
    morgue: Morgue, tmp_path: Path
) -> None:
    await morgue.fill(*orders(5))
    async with a_broker(morgue.settings) as broker:
        odd = Message(bytes(range(256)), "", morgue.dead, {"n": 1, "raw": b"\x00\xff"}, type="odd", message_id="m")
        await broker.publish(odd, timeout=10)
        async with a_desk(morgue.settings, tmp_path, broker) as desk:
            before = await contents(desk, morgue.dead)
            done = await desk.work(desk.discard(morgue.dead, Selection())).run()
            emptied = await contents(desk, morgue.dead)

            [first] = [await desk.work(one).run() for one in await desk.restore(desk.archive_of(done))]
            [again] = [await desk.work(one).run() for one in await desk.restore(desk.archive_of(done))]

            after = await contents(desk, morgue.dead)

    assert (done.state, dict(done.counts), emptied) == ("done", {"removed": 6}, [])
    assert (first.counts, again.counts) == ({"restored": 6}, {"present": 6})
    assert [letter.key for letter in after] == [letter.key for letter in before]
    assert after[-1].message.body == bytes(range(256))
    assert bytes(after[-1].message.headers["raw"]) == b"\x00\xff"


async def test_an_edited_letter_is_a_new_event_with_the_old_one_as_its_cause(morgue: Morgue, tmp_path: Path) -> None:
    await morgue.fill("typo")
    morgue.charge.mended = True
    async with a_desk(morgue.settings, tmp_path) as desk:
        [letter] = await contents(desk, morgue.dead)
        operation = desk.edit(morgue.dead, letter.key, Edit(b'{"order":"right"}', {"ticket": "T-1"}))
        await desk.work(operation, Pace(wait=0)).run()
        async with a_broker(morgue.settings) as broker:
            [message] = await take(broker, morgue.queue, 1)
        archived = desk.archive_of(operation).read_text()

    assert (message.body, message.headers["ticket"]) == (b'{"order":"right"}', "T-1")
    assert message.headers["causation-id"] == letter.event_id != message.headers["event-id"]
    assert message.headers["event-id"] in archived and '"{\\"order\\":\\"typo\\"}"' in archived


def test_what_makes_an_event_itself_cannot_be_edited() -> None:
    with pytest.raises(ConfigurationError, match="event-id"):
        Edit(b"{}", {"event-id": "mine"})


async def test_letters_of_other_software_are_shown_and_replayed(
    settings: Settings, unique: str, tmp_path: Path
) -> None:
    """A plain queue that dead-letters by RabbitMQ alone."""
    work, dead = f"{unique}.jobs", f"{unique}.jobs.dlq"
    async with a_channel(settings) as channel:
        await channel.queue_declare(dead, durable=True)
        route = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead}
        await channel.queue_declare(work, durable=True, arguments=route)
        await channel.exchange_declare(f"{unique}.x", exchange_type="topic", durable=True)
        await channel.queue_bind(work, f"{unique}.x", "job.run")
        await channel.basic_publish(b"do it", exchange=f"{unique}.x", routing_key="job.run", wait=True)
        got = await channel.basic_get(work)
        await channel.basic_reject(got.delivery.delivery_tag, requeue=False)  # type: ignore[union-attr, arg-type]

    async with a_desk(settings, tmp_path) as desk:
        await until_letters(desk, dead, 1)
        [letter] = await contents(desk, dead)
        sent = await desk.work(desk.replay(dead, Selection()), Pace(wait=0)).run()
        async with a_broker(settings) as broker:
            [message] = await take(broker, work, 1)

    assert (letter.reason, letter.target, letter.event_type) == ("rejected", work, "job.run")
    assert (letter.is_foreign, dict(sent.counts)) == (True, {"sent": 1})
    assert message.body == b"do it"
    assert "x-death" not in message.headers


async def until_letters(desk: object, queue: str, count: int) -> None:

    from holdfast.dead_letters import DeadLetters

    assert isinstance(desk, DeadLetters)

    async def ready() -> int:
        depth = await desk.broker.count(queue)
        return depth.ready if depth else 0

    await eventually(ready, count)


async def test_what_the_broker_gave_up_on_is_recognised_and_replayed(morgue: Morgue, tmp_path: Path) -> None:
    topology = work_queue(morgue.queue, kind="quorum", exchange=morgue.settings.broker.exchange, keys=())
    async with a_broker(morgue.settings) as broker:
        await broker.declare(topology)
        headers = {"event-id": "e-1", "event-time": "2026-01-02T12:00:00+00:00"}
        body, kind = b'{"order":"poison"}', f"{morgue.Order.__event_type__}"
        await broker.publish(Message(body, "", morgue.queue, headers, type=kind, message_id="m"), timeout=10)
        async with a_channel(morgue.settings) as channel:
            for _ in range(101):
                got = await channel.basic_get(morgue.queue)
                await channel.basic_reject(got.delivery.delivery_tag, requeue=True)  # type: ignore[union-attr, arg-type]
        async with a_desk(morgue.settings, tmp_path, broker) as desk:
            await until_letters(desk, morgue.dead, 1)
            [letter] = await contents(desk, morgue.dead)
            morgue.charge.mended = True
            async with running(morgue.worker()):
                done = await replay(desk, morgue.dead)

    assert (letter.reason, letter.event_id, letter.target) == ("delivery-limit", "e-1", morgue.queue)
    assert dict(done.counts) == {"handled": 1}
    assert morgue.charge.effects == {"poison": 1}


async def test_a_completed_event_is_skipped_and_said_so_unless_it_is_forced(morgue: Morgue, tmp_path: Path) -> None:
    morgue.charge.mended = True
    async with a_desk(morgue.settings, tmp_path) as desk, running(morgue.worker()):
        await morgue.publish("a")
        handled = [fact for fact in await morgue.facts.settled("handled", count=2) if fact.handler == "charge"]
        metadata = handled[0].metadata

        async def replay_copy(*, forced: bool) -> dict[str, int]:
            headers = {"event-id": metadata.event_id, "event-time": metadata.time.isoformat()}
            copy = Message(
                b'{"order":"a"}', "", morgue.dead, headers,
                type=metadata.event_type, app_id=metadata.source, message_id=uuid.uuid4().hex,
            )  # fmt: skip
            await desk.broker.publish(copy, timeout=10)
            return dict((await replay(desk, morgue.dead, forced=forced)).counts)  # type: ignore[arg-type]

        outcomes = [await replay_copy(forced=False), await replay_copy(forced=True)]

    assert outcomes == [{"skipped": 1}, {"handled": 1}]
    assert morgue.charge.effects == {"a": 2}


async def test_a_queue_that_another_tool_reads_is_left_to_it(morgue: Morgue, tmp_path: Path) -> None:
    await morgue.fill("a")
    async with a_desk(morgue.settings, tmp_path) as desk:
        browser = await desk.broker.browse(morgue.dead, lambda held: None)
        await browser.caught_up()

        with pytest.raises(QueueInUse):
            await desk.read(morgue.dead)
        [place] = await desk.queues([morgue.queue])

        await browser.close()
    assert (place.letters, place.is_read) == (0, True)


async def test_a_replay_to_a_queue_that_is_gone_stops_and_keeps_the_letter(
    settings: Settings, unique: str, tmp_path: Path
) -> None:
    dead = f"{unique}.gone.dead"
    async with a_broker(settings) as broker:
        await broker.declare(Topology(queues=(resting_queue(dead),)))
        await broker.publish(Message(b"{}", "", dead, message_id="m"), timeout=10)
        async with a_desk(settings, tmp_path, broker) as desk:
            stopped = await replay(desk, dead)
            left = await contents(desk, dead)

    assert (stopped.state, f"{unique}.gone" in stopped.detail, len(left)) == ("stopped", True, 1)


@pytest.mark.parametrize("outcome", ["handled", "dead_lettered"])
async def test_a_letter_taken_by_a_tool_that_was_killed_before_noting_it_keeps_its_outcome(
    outcome: ReceiptOutcome, tmp_path: Path
) -> None:
    """Its replacement is confirmed and told of, and the ack has arrived: the journal's last line is missing."""
    settings = Settings(broker={"url": f"memory://{tmp_path.name}"}, idempotency={"url": "memory://"})
    async with a_broker(settings) as broker:
        await broker.declare(Topology(queues=(resting_queue("q.dead"),)))
        await broker.publish(Message(b"{}", "", "q.dead", {"event-id": "e"}), timeout=5)
        async with a_desk(settings, tmp_path, broker) as desk:
            await desk.read("q.dead")
            operation = desk.replay("q.dead", Selection())
            [item] = desk.journal.left(operation.id)
            desk.journal.sending(operation.id, [item.key])
            desk.journal.published(operation.id, [item.key])
            desk.journal.hear([Receipt(operation.id, item.key, outcome)])
            held: list[Held] = []
            browser = await broker.browse("q.dead", held.append)
            await browser.caught_up()
            await browser.remove(held[0].tag)
            await browser.close()

            ended = await desk.work(operation, QUICK).run()

    assert ended.counts == {"handled" if outcome == "handled" else "failed": 1}


async def test_an_operation_that_reads_its_queue_hides_no_letter_from_the_page(tmp_path: Path) -> None:
    settings = Settings(broker={"url": f"memory://{tmp_path.name}"}, idempotency={"url": "memory://"})
    async with a_broker(settings) as broker:
        await broker.declare(Topology(queues=(resting_queue("q.dead"),)))
        for n in range(3):
            await broker.publish(Message(b"{}", "", "q.dead", {"event-id": f"e-{n}"}), timeout=5)
        async with a_desk(settings, tmp_path, broker) as desk:
            await desk.read("q.dead")
            discarding = asyncio.create_task(desk.work(desk.discard("q.dead", Selection(limit=1))).run())
            seen = set[int]()
            while not discarding.done():
                seen.add(desk.index("q.dead").count())
                await asyncio.sleep(0)

    assert seen <= {3, 2}
