"""What happens to messages when the processes that handle them are told to stop, or are killed."""

import json
import signal
from collections import Counter

import pytest
from breaking import with_worker
from child_app import BlockingTask, Task
from children import a_child
from running import a_broker, depth, publish_all, take

from holdfast import Event, Publisher, Settings
from holdfast.events import headers as h


def names(lines: list[str]) -> Counter[str]:
    return Counter(line.split()[-1] for line in lines)


async def test_an_event_whose_process_is_killed_is_handled_by_the_next(settings: Settings) -> None:
    async with a_child(settings) as first:
        await publish_all(settings, [Task(name="o-1", does="wait")])
        await first.until("began o-1")
        first.send(signal.SIGKILL)
        await first.ended()

    async with a_child(settings) as second:
        second.let_go()
        await second.until("settled handled")
        second.send(signal.SIGTERM)
        code = await second.ended()

    assert (first.those("ended"), second.those("ended")) == ([], ["ended o-1"])
    assert code == 0
    assert await depth(settings, f"{settings.broker.exchange}.w.handle") == 0


async def test_a_process_told_to_stop_finishes_what_runs_and_gives_back_the_rest_at_once(settings: Settings) -> None:
    settings = with_worker(settings, concurrency=50)
    async with a_child(settings) as first:
        await publish_all(settings, [Task(name=f"o-{n}", does="wait") for n in range(100)])
        await first.until("began", count=49)  # one slot is kept for the other handler

        async with a_child(settings) as second:
            first.send(signal.SIGTERM)
            await second.until("began", count=49)
            second.let_go()
            await second.until("settled handled", count=51)
            still_running = len(first.those("ended")) == 0
            first.let_go()
            code = await first.ended(within=settings.worker.grace)
            left = await depth(settings, f"{settings.broker.exchange}.w.handle")

            second.send(signal.SIGTERM)
            assert await second.ended() == 0

    assert (code, still_running, left) == (0, True, 0)
    assert names(first.those("ended")) + names(second.those("ended")) == Counter(f"o-{n}" for n in range(100))
    assert len(first.those("began")) == len(first.those("settled handled")) == 49
    assert not first.those("cancelled")
    assert first.said[-1] == "closed"


@pytest.mark.parametrize(
    "event",
    [Task(name="o-1", does="hang"), Task(name="o-1", does="ignore"), BlockingTask(name="o-1")],
    ids=["async", "stubborn", "def"],
)
async def test_told_twice_a_process_ends_at_once_and_its_message_is_back_undamaged(
    settings: Settings, event: Task | BlockingTask
) -> None:
    queue = f"{settings.broker.exchange}.w.{'block' if isinstance(event, BlockingTask) else 'handle'}"
    async with a_child(with_worker(settings, grace=3600)) as child, Publisher(settings) as publisher:
        sent = await publisher.publish(event)
        await child.until("began o-1")

        child.send(signal.SIGTERM)
        await child.until("draining")
        child.send(signal.SIGTERM)
        code = await child.ended(within=4)

    async with a_broker(settings) as broker:
        [message] = await take(broker, queue, 1)
    assert code == 1
    assert json.loads(message.body) == json.loads(event.model_dump_json())
    assert (message.headers[h.EVENT_ID], h.ATTEMPT in message.headers) == (sent.event_id, False)
    assert await depth(settings, f"{queue}.dead") == 0


@pytest.mark.parametrize("event", [Task(name="o-1", does="hang"), BlockingTask(name="o-1")], ids=["async", "def"])
async def test_a_handler_that_outlasts_the_grace_period_is_given_back_and_the_process_ends(
    settings: Settings, event: Event
) -> None:
    queue = f"{settings.broker.exchange}.w.{'block' if isinstance(event, BlockingTask) else 'handle'}"
    async with a_child(with_worker(settings, grace=0.3)) as child:
        await publish_all(settings, [event])
        await child.until("began o-1")

        child.send(signal.SIGTERM)
        code = await child.ended(within=6)

    assert code == 0
    assert child.those("settled") == ["settled given_back"]
    assert await depth(settings, queue) == 1
    assert await depth(settings, f"{queue}.dead") == 0
