"""Every filter narrows every command of `holdfast dead`, and each of the rarer flags does what it says."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from apps import copy_app
from commands import environment, holdfast
from running import a_broker, depth

from holdfast import Settings
from holdfast.broker import Queue, Topology, resting_queue
from holdfast.events import Message

Dead = Callable[..., Any]


@pytest.fixture
def dead(settings: Settings, tmp_path: Path, unique: str) -> Dead:
    copy_app("two_queues", tmp_path, NAME=unique)
    env = environment(
        HOLDFAST_BROKER__URL=settings.broker.url.get_secret_value(),
        HOLDFAST_BROKER__EXCHANGE=settings.broker.exchange,
        HOLDFAST_BROKER__MAX_DELAY="3600",
        HOLDFAST_IDEMPOTENCY__URL="memory://",
        HOLDFAST_DEAD_LETTERS__FOLDER=str(tmp_path / "state"),
    )

    def run(*arguments: str, broker: str | None = None, **options: Any) -> Any:
        own = env | ({"HOLDFAST_BROKER__URL": broker} if broker else {})
        return holdfast("dead", *arguments, folder=tmp_path, env=own, **options)

    return run


@pytest.fixture
async def letters(settings: Settings, unique: str) -> str:
    """Two letters in the dead-letter queue of `charge`, and an empty queue beside it. The name of the first queue."""
    queues = tuple(resting_queue(f"{unique}.{name}") for name in ("charge", "charge.dead", "other", "other.dead"))
    now = datetime.now(UTC).isoformat()
    async with a_broker(settings) as broker:
        await broker.declare(Topology(queues=queues))
        for order, reason in (("a", "exhausted"), ("b", "refused")):
            headers = {
                "event-id": f"id-{order}",
                "event-key": order,
                "holdfast-reason": reason,
                "holdfast-handler": "charge",
                "holdfast-error-message": f"the bank is away for {order}",
                "holdfast-fingerprint": f"3f2{order}",
                "holdfast-failed-at": now,
                "odd": "1",
            }
            body = json.dumps({"order": order}).encode()
            about = {"type": f"{unique}.order", "message_id": order, "correlation_id": f"chain-{order}"}
            message = Message(body, "", f"{unique}.charge.dead", headers, **about)
            await broker.publish(message, timeout=10)
    return f"{unique}.charge"


def test_every_filter_is_taken_by_every_command(dead: Dead, letters: str, unique: str) -> None:
    every = [
        *("--id", "id-a", "--reason", "exhausted", "--type", f"{unique}.order", "--fingerprint", "3f2a"),
        *("--handler", "charge", "--text", "bank is away for a", "--since", "1h", "--until", "2100-01-01T00:00"),
        *("--limit", "1", "--payload", "ORDER a", "--correlation", "chain-a", "--key", "a"),
    ]

    shown = dead("show", letters, *every, "--worn", "--json")
    replayed = dead("replay", letters, *every, "--dry-run", "--worn")
    discarded = dead("discard", letters, *every, "--dry-run", "--worn")
    checked = dead("check", letters, "app:worker", *every, "--cached", "--worn", "--json")
    exported = dead("export", letters, "out.ndjson", *every, "--worn", "--json")

    for done in (shown, replayed, discarded, checked, exported):
        assert done.returncode == 0, done.stderr
    assert len(json.loads(shown.stdout)["letters"]) == 1
    assert "1 letter(s)" in replayed.stdout and "1 letter(s)" in discarded.stdout
    assert json.loads(checked.stdout)["readable"] == 1


async def test_letters_can_be_sent_to_another_queue_edited_replayed_and_imported(
    dead: Dead, letters: str, unique: str, settings: Settings
) -> None:
    other = f"{unique}.other"
    dead("export", letters, "out.ndjson")
    sent = ("--to", other, "--wait", "0", "--yes", "--worn", "--json")
    edit = ("edit", letters, "id-b", "app:worker", "--body", "-", "--no-header", "odd")

    replayed = dead("replay", letters, "--id", "id-a", "--force", "--keep-going", *sent)
    edited = dead(*edit, *sent, stdin='{"order": "c"}')
    imported = dead("import", "out.ndjson", "--to", f"{other}.dead", "--yes", "--json")

    for done in (replayed, edited, imported):
        assert done.returncode == 0, done.stderr
    assert json.loads(imported.stdout)["imported"] == 2
    assert await depth(settings, other) == 2
    assert await depth(settings, f"{other}.dead") == 2
    assert await depth(settings, f"{letters}.dead") == 0


def test_an_operation_that_has_sent_all_is_not_paused_and_sends_nothing_again(
    dead: Dead, letters: str, unique: str
) -> None:
    replay = ("replay", letters, "--yes", "--to", f"{unique}.other", "--wait", "0", "--json")
    operation = json.loads(dead(*replay).stdout)["operation"]["id"]

    dead("pause", operation, "--json")
    dead("resume", operation, "--keep-going", "--wait", "0", "--json")
    [after] = json.loads(dead("operations", "--json").stdout)

    assert (after["state"], after["counts"]) == ("waiting", {"sent": 2})


@pytest.mark.parametrize(
    "command",
    [
        ("show",),
        ("replay", "--dry-run"),
        ("discard", "--dry-run"),
        ("export", "out.ndjson"),
        ("check", "app:worker"),
        ("edit", "id-a", "app:worker", "--body", "-"),
    ],
    ids=lambda command: command[0],
)
async def test_a_queue_that_is_not_for_dead_letters_is_left_alone(
    dead: Dead, letters: str, unique: str, settings: Settings, command: tuple[str, ...]
) -> None:
    """`holdfast dead discard payroll --yes` would empty a queue of somebody else's."""
    theirs = f"{unique}.payroll"
    async with a_broker(settings) as broker:
        await broker.declare(Topology(queues=(resting_queue(theirs),)))
        await broker.publish(Message(b"{}", "", theirs, message_id="m"), timeout=10)

    refused = dead(command[0], theirs, *command[1:], stdin="{}")
    meant = dead(command[0], theirs, *command[1:], "--any-queue", stdin="{}")

    assert refused.returncode == 1 and "is not a dead-letter queue of Holdfast" in refused.stderr
    assert "is not a dead-letter queue of Holdfast" not in meant.stderr
    assert await depth(settings, theirs) == 1


def test_list_and_import_take_any_queue_only_when_it_is_said(dead: Dead, letters: str, unique: str) -> None:
    other = f"{unique}.other"
    dead("export", letters, "out.ndjson")

    refused = [dead("list", other, "--json"), dead("import", "out.ndjson", "--to", other, "--yes")]
    meant = [dead("import", "out.ndjson", "--to", other, "--yes", "--any-queue"), dead("list", other, "--any-queue")]

    assert f"{other}.dead" in refused[0].stdout  # what its name means
    assert f"{other}.dead" in meant[1].stdout
    assert [done.returncode for done in (*refused, *meant)] == [0, 0, 0, 0]


def test_a_reason_that_is_misspelt_is_named_with_those_there_are(dead: Dead, letters: str) -> None:
    wrong = dead("show", letters, "--reason", "exhaused")
    none = dead("show", letters, "--reason", "crashed")

    assert wrong.returncode == 1 and "'exhaused' is no reason" in wrong.stderr
    assert "exhausted, refused, unreadable" in wrong.stderr and "rejected, maxlen" in wrong.stderr
    assert none.returncode == 0 and "0 letter(s)" in none.stdout


def test_a_broker_that_is_down_is_said_in_one_line_at_once(dead: Dead) -> None:
    done = dead("list", broker="amqp://guest:guest@127.0.0.1:1/")

    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "the broker at" in done.stderr and "refused" in done.stderr and "127.0.0.1:1" in done.stderr


@pytest.mark.timeout(60)
async def test_a_stream_is_named_and_not_waited_for(dead: Dead, unique: str, settings: Settings) -> None:
    stream = f"{unique}.log.dead"
    async with a_broker(settings) as broker:
        await broker.declare(Topology(queues=(Queue(stream, {"x-queue-type": "stream"}),)))
        await broker.publish(Message(b"{}", "", stream, message_id="m"), timeout=10)

    for done in (dead("show", stream), dead("discard", stream, "--yes")):
        assert (
            done.returncode == 1
            and done.stderr == f"holdfast: {stream} is a stream: letters are read from queues alone\n"
        )
