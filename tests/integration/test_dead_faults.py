"""Dead-letter operations that are broken off: the tool killed, the connection cut, the broker killed. Nothing is lost,
and each operation can be resumed."""

import asyncio
import json
import signal
import sqlite3
import uuid
from contextlib import suppress
from pathlib import Path

import pytest
from breaking import through, with_url
from commands import Running, environment, holdfast, killed_when
from morgue import Morgue, a_desk, contents
from proxy import Direction, proxy_to
from running import a_broker, running, take
from waiting import eventually

from holdfast import Settings
from holdfast.broker import Depth, Queue, Topology, resting_queue, work_queue
from holdfast.dead_letters import DeadLetters, Edit, Pace, Selection, WornOut
from holdfast.events import BrokerUnavailable, Message
from holdfast.testing.servers import Node


@pytest.fixture
def morgue(settings: Settings, unique: str) -> Morgue:
    return Morgue(settings, unique)


@pytest.fixture
def env(settings: Settings, tmp_path: Path) -> dict[str, str]:
    return environment(
        HOLDFAST_BROKER__URL=settings.broker.url.get_secret_value(),
        HOLDFAST_BROKER__EXCHANGE=settings.broker.exchange,
        HOLDFAST_IDEMPOTENCY__URL="memory://",
        HOLDFAST_DEAD_LETTERS__FOLDER=str(tmp_path / "state"),
    )


async def lay_out(settings: Settings, queue: str, count: int) -> list[bytes]:
    """A queue and its dead-letter queue with so many letters in it; no worker."""
    bodies = [json.dumps({"n": n}).encode() for n in range(count)]
    async with a_broker(settings) as broker:
        await broker.declare(work_queue(queue, kind="quorum", exchange=settings.broker.exchange, keys=()))
        letters = [
            Message(body, "", f"{queue}.dead", {"event-id": f"e-{body!r}"}, message_id=uuid.uuid4().hex)
            for body in bodies
        ]
        for begin in range(0, count, 200):
            await asyncio.gather(*(broker.publish(one, timeout=30) for one in letters[begin : begin + 200]))
    return bodies


def removed(folder: Path) -> int:
    """How many letters the journal in this folder says are off their queue."""
    for path in folder.glob("state/*/journal.sqlite"):
        try:
            with sqlite3.connect(path) as db:
                return int(db.execute("SELECT count(*) FROM items WHERE removed").fetchone()[0])
        except sqlite3.Error:
            return 0
    return 0


async def test_a_replay_whose_tool_is_killed_goes_on_and_runs_each_event_once(
    morgue: Morgue, tmp_path: Path, env: dict[str, str]
) -> None:
    names = [f"o-{n}" for n in range(400)]
    await morgue.fill(*names)
    morgue.charge.mended = True
    async with running(morgue.worker()):
        replay = ("replay", morgue.queue, "--yes", "--no-canary", "--rate", "400")
        await asyncio.to_thread(killed_when, lambda: removed(tmp_path) > 50, "dead", *replay, folder=tmp_path, env=env)
        listed = await asyncio.to_thread(holdfast, "dead", "operations", "--json", folder=tmp_path, env=env)
        [operation] = json.loads(listed.stdout)

        resumed = await asyncio.to_thread(holdfast, "dead", "resume", operation["id"], folder=tmp_path, env=env)

    assert (operation["state"], operation["is_running"]) == ("running", False)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert morgue.charge.effects == dict.fromkeys(names, 1)
    async with a_desk(morgue.settings, tmp_path / "other") as desk:
        assert await contents(desk, morgue.dead) == []


async def test_a_discard_whose_tool_is_killed_has_every_letter_in_the_archive_or_the_queue(
    settings: Settings, unique: str, tmp_path: Path, env: dict[str, str]
) -> None:
    bodies = await lay_out(settings, unique, 2000)
    discard = ("discard", unique, "--yes")
    await asyncio.to_thread(killed_when, lambda: removed(tmp_path) > 300, "dead", *discard, folder=tmp_path, env=env)
    [archive] = tmp_path.glob("state/*/archive/*.ndjson")  # noqa: ASYNC240
    async with a_desk(settings, tmp_path / "other") as desk:
        there = {letter.message.body for letter in await contents(desk, f"{unique}.dead")}
    archived = {json.loads(line)["message"]["body"].encode() for line in archive.read_text().splitlines()}

    name = archive.name.split(".")[-2]
    done = await asyncio.to_thread(holdfast, "dead", "resume", name, folder=tmp_path, env=env)

    assert there | archived == set(bodies) and len(there) < 2000
    assert done.returncode == 0, done.stdout + done.stderr
    assert [json.loads(line)["message"]["body"].encode() for line in archive.read_text().splitlines()] == bodies


async def test_an_import_whose_tool_is_killed_goes_on_and_restores_each_letter_once(
    settings: Settings, unique: str, tmp_path: Path, env: dict[str, str]
) -> None:
    bodies = await lay_out(settings, unique, 1000)
    async with a_desk(settings, tmp_path / "other") as desk:
        imports = ("dead", "import", str(await discarded(desk, unique)), "--yes")
        await asyncio.to_thread(killed_when, lambda: removed(tmp_path) > 100, *imports, folder=tmp_path, env=env)
        listed = await asyncio.to_thread(holdfast, "dead", "operations", "--json", folder=tmp_path, env=env)
        [operation] = json.loads(listed.stdout)

        done = await asyncio.to_thread(holdfast, "dead", "resume", operation["id"], folder=tmp_path, env=env)

        letters = await contents(desk, f"{unique}.dead")
    assert (operation["kind"], operation["state"], operation["is_running"]) == ("import", "running", False)
    assert done.returncode == 0, done.stderr
    assert sorted(letter.message.body for letter in letters) == sorted(bodies)


async def test_ctrl_c_pauses_the_import_of_one_queue_and_begins_no_other(
    settings: Settings, unique: str, tmp_path: Path, env: dict[str, str]
) -> None:
    """The first queue is read by another tool, so that its import waits."""
    queues, archive = [f"{unique}.a", f"{unique}.b"], tmp_path / "both.ndjson"
    async with a_desk(settings, tmp_path / "other") as desk:
        for queue in queues:
            await lay_out(settings, queue, 1)
            with archive.open("a") as file:
                file.write((await discarded(desk, queue)).read_text())
        browser = await desk.broker.browse(f"{queues[0]}.dead", lambda held: None)
        await browser.caught_up()
        with Running("dead", "import", str(archive), "--yes", folder=tmp_path, env=env, own_group=True) as tool:
            await eventually(lambda: waits(tmp_path))

            code = await asyncio.to_thread(tool.stop, signal.SIGINT)

        await browser.close()
        left = [len(await contents(desk, f"{queue}.dead")) for queue in queues]
    listed = await asyncio.to_thread(holdfast, "dead", "operations", "--json", folder=tmp_path, env=env)
    operations = json.loads(listed.stdout)
    assert (code, left) == (1, [0, 0])
    assert [operation["state"] for operation in operations] == ["paused", "paused"]
    assert all(f"holdfast dead resume {operation['id']}" in tool.log for operation in operations)


def waits(folder: Path) -> bool:
    """Whether the journal in this folder has an operation that waits for its queue."""
    for path in folder.glob("state/*/journal.sqlite"):
        with suppress(sqlite3.Error), sqlite3.connect(path) as db:
            return bool(db.execute("SELECT 1 FROM operations WHERE detail LIKE 'waiting: %'").fetchone())
    return False


async def test_what_a_killed_import_had_on_its_way_is_taken_back_when_it_comes_late(
    settings: Settings, unique: str, tmp_path: Path
) -> None:
    """The network keeps what the tool published last until another has gone on with the import."""
    bodies = await lay_out(settings, unique, 600)
    async with (
        proxy_to(settings.broker.url.get_secret_value()) as proxy,
        a_desk(through(proxy, settings), tmp_path / "state") as desk,
    ):
        archive, queue = str(await discarded(desk, unique)), f"{unique}.dead"
        address = {"HOLDFAST_BROKER__URL": through(proxy, settings).broker.url.get_secret_value()}
        env = environment(**address, HOLDFAST_DEAD_LETTERS__FOLDER=str(tmp_path / "state"))
        with Running("dead", "import", archive, "--yes", folder=tmp_path, env=env) as tool:
            await eventually(lambda: restored(desk) > 0)
            proxy.freeze(saying=b"holdfast publish")
            await proxy.until_withheld(Direction.TO_SERVER)
            tool.stop(signal.SIGKILL)
        [operation] = [each for each in desk.journal.operations() if each.kind == "import"]
        before = dict(operation.counts)

        done = await desk.work(operation, tell=proxy.resume).run()

        letters = await contents(desk, queue)
    assert before["sending"] > 0 and before["restored"] < 600
    assert done.state == "done" and done.counts == {"restored": 600}
    assert sorted(letter.message.body for letter in letters) == sorted(bodies)


def restored(desk: DeadLetters) -> int:
    return sum(each.counts.get("restored", 0) for each in desk.journal.operations())


async def test_an_import_outlives_a_cut_connection(settings: Settings, unique: str, tmp_path: Path) -> None:
    bodies = await lay_out(settings, unique, 1500)
    async with (
        proxy_to(settings.broker.url.get_secret_value()) as proxy,
        a_desk(through(proxy, settings), tmp_path) as desk,
    ):
        archive = await discarded(desk, unique)
        [operation] = await desk.restore(archive)
        proxy.cut_after(150_000, Direction.TO_SERVER)

        done = await desk.work(operation).run()

    async with a_desk(settings, tmp_path) as desk:
        letters = [letter.message.body for letter in await contents(desk, f"{unique}.dead")]
    assert (done.state, sorted(letters)) == ("done", sorted(bodies))


async def test_letters_that_are_alike_in_everything_are_each_put_back(
    settings: Settings, unique: str, tmp_path: Path
) -> None:
    async with a_desk(settings, tmp_path) as desk:
        await desk.broker.declare(Topology(queues=(resting_queue(f"{unique}.dead"),)))
        for _ in range(3):
            await desk.broker.publish(Message(b"{}", "", f"{unique}.dead"), timeout=30)
        archive = await discarded(desk, unique)

        for _ in range(2):  # the second time they are there
            [operation] = await desk.restore(archive)
            done = await desk.work(operation).run()

        letters = await contents(desk, f"{unique}.dead")
    assert [letter.message.body for letter in letters] == [b"{}"] * 3
    assert done.counts == {"present": 3}


async def test_two_imports_at_once_restore_each_letter_once(settings: Settings, unique: str, tmp_path: Path) -> None:
    bodies = await lay_out(settings, unique, 1000)
    async with a_desk(settings, tmp_path / "one") as one, a_desk(settings, tmp_path / "two") as two:
        archive = await discarded(two, unique)
        works = [desk.work(begun) for desk in (one, two) for begun in await desk.restore(archive)]

        ended = await asyncio.gather(*(work.run() for work in works))

        letters = await contents(two, f"{unique}.dead")
    assert sorted(letter.message.body for letter in letters) == sorted(bodies)
    assert sum(operation.counts.get("restored", 0) for operation in ended) == 1000


async def discarded(desk: DeadLetters, queue: str) -> Path:
    """Discard all there is; returns the archive."""
    await desk.read(f"{queue}.dead")
    return desk.archive_of(await desk.work(desk.discard(f"{queue}.dead", Selection())).run())


async def test_a_replay_outlives_cut_connections(morgue: Morgue, tmp_path: Path) -> None:
    names = [f"o-{n}" for n in range(300)]
    await morgue.fill(*names)
    morgue.charge.mended = True
    async with (
        running(morgue.worker()),
        proxy_to(morgue.settings.broker.url.get_secret_value()) as proxy,
        a_desk(through(proxy, morgue.settings), tmp_path) as desk,
    ):
        await desk.read(morgue.dead)
        work = desk.work(desk.replay(morgue.dead, Selection()), Pace(canary=False, wait=30, rate=600))
        proxy.cut_after(40_000, Direction.TO_SERVER)
        working = asyncio.create_task(work.run())
        await morgue.charge.effects.until(lambda: morgue.charge.effects.total() > 150)
        proxy.cut()

        done = await working

    assert done.state == "done", done
    assert morgue.charge.effects == dict.fromkeys(names, 1)
    async with a_desk(morgue.settings, tmp_path / "other") as desk:
        assert await contents(desk, morgue.dead) == []


@pytest.mark.parametrize("size", [20_000, 60_000])
async def test_a_discard_outlives_a_cut_connection(settings: Settings, unique: str, tmp_path: Path, size: int) -> None:
    bodies = await lay_out(settings, unique, 1500)
    async with (
        proxy_to(settings.broker.url.get_secret_value()) as proxy,
        a_desk(through(proxy, settings), tmp_path) as desk,
    ):
        await desk.read(f"{unique}.dead")
        operation = desk.discard(f"{unique}.dead", Selection())
        proxy.cut_after(size, Direction.TO_SERVER)

        done = await desk.work(operation).run()

        archived = desk.archive_of(operation).read_text().splitlines()
    async with a_desk(settings, tmp_path) as desk:
        left = await contents(desk, f"{unique}.dead")
    assert (done.state, left) == ("done", [])
    assert [json.loads(line)["message"]["body"].encode() for line in archived] == bodies


@pytest.mark.timeout(180)
async def test_a_replay_outlives_a_broker_that_is_killed(
    settings: Settings, rabbitmq_node: Node, unique: str, tmp_path: Path
) -> None:
    own, queue = with_url(settings, rabbitmq_node.url), f"{unique}.charge"
    bodies = await lay_out(own, queue, 600)
    # RabbitMQ names a new queue on disk a little later; one it lost the name of has no leader after a kill, for good.
    await asyncio.to_thread(rabbitmq_node.ctl, "eval", "dets:sync(ra_directory_reverse).")
    async with a_desk(own, tmp_path) as desk:
        await desk.read(f"{queue}.dead")
        operation = desk.replay(f"{queue}.dead", Selection())
        working = asyncio.create_task(desk.work(operation, Pace(canary=False, wait=0, rate=800)).run())
        await eventually(lambda: desk.journal.operation(operation.id).counts.get("sent", 0) > 100)

        await asyncio.to_thread(rabbitmq_node.kill)
        await asyncio.to_thread(rabbitmq_node.start)
        ended = await working

        left = await contents(desk, f"{queue}.dead")

        async def counted() -> int:  # a broker that has just started may count fewer than it has
            depth = await desk.broker.count(queue)
            return 0 if depth is None else min(depth.ready, len(bodies))

        await eventually(counted, len(bodies))
        replayed = await arrived(desk, queue)
    assert (ended.left, left) == (0, [])
    assert set(replayed) == set(bodies)
    assert len(replayed) - len(bodies) <= 200, "more were sent twice than can have been on their way"


async def test_a_queue_without_a_leader_is_not_taken_for_an_empty_one(
    settings: Settings, rabbitmq_node: Node, unique: str, tmp_path: Path
) -> None:
    """RabbitMQ counts nothing in it: a replay would take its letters for gone, and be done."""
    own, queue = with_url(settings, rabbitmq_node.url), f"{unique}.charge"
    bodies = await lay_out(own, queue, 20)
    member = f"quorum_queues, {{'%2F_{queue}.dead', node()}}"
    async with a_desk(own, tmp_path) as desk:
        await desk.read(f"{queue}.dead")
        operation = desk.replay(f"{queue}.dead", Selection())
        await asyncio.to_thread(rabbitmq_node.ctl, "eval", f"ra:stop_server({member}).")
        assert await desk.broker.count(f"{queue}.dead") == Depth(0, 0)

        with pytest.raises(BrokerUnavailable, match=rf"cannot read {queue}\.dead: it has no leader"):
            await desk.queues([queue])
        working = asyncio.create_task(desk.work(operation, Pace(canary=False, wait=0)).run())
        await eventually(lambda: "cannot read" in desk.journal.operation(operation.id).detail)
        await asyncio.to_thread(rabbitmq_node.ctl, "eval", f"ra:restart_server({member}).")
        ended = await working

        assert (ended.left, await contents(desk, f"{queue}.dead")) == (0, [])
        assert set(await arrived(desk, queue)) == set(bodies)


async def arrived(desk: DeadLetters, queue: str) -> list[bytes]:
    """The bodies in a work queue that nobody consumes."""
    depth = await desk.broker.count(queue)
    assert depth is not None
    return [message.body for message in await take(desk.broker, queue, depth.ready)]


async def test_an_edit_that_is_broken_off_is_made_once(settings: Settings, unique: str, tmp_path: Path) -> None:
    """Cut at several places: the same new event each time, the original in the archive once, and out of its queue."""
    for size in (300, 1500, 3000):
        queue = f"{unique}.{size}"
        await lay_out(settings, queue, 1)
        async with (
            proxy_to(settings.broker.url.get_secret_value()) as proxy,
            a_desk(through(proxy, settings), tmp_path) as desk,
        ):
            [letter] = await contents(desk, f"{queue}.dead")
            operation = desk.edit(f"{queue}.dead", letter.key, Edit(b'{"n": "new"}'))
            proxy.cut_after(size, Direction.TO_SERVER)

            done = await desk.work(operation, Pace(wait=0)).run()

            assert done.left == 0, done
            assert len(desk.archive_of(operation).read_text().splitlines()) == 1
        async with a_desk(settings, tmp_path) as desk:
            assert await contents(desk, f"{queue}.dead") == []
            assert set(await arrived(desk, queue)) == {b'{"n": "new"}'}


async def test_reading_is_broken_off_without_harm(settings: Settings, unique: str, tmp_path: Path) -> None:
    bodies = await lay_out(settings, unique, 3000)
    show = ("show", unique)
    env = environment(
        HOLDFAST_BROKER__URL=settings.broker.url.get_secret_value(), HOLDFAST_DEAD_LETTERS__FOLDER=str(tmp_path / "s")
    )
    async with a_desk(settings, tmp_path / "other") as desk:
        loop = asyncio.get_running_loop()

        def is_read() -> bool:
            found = asyncio.run_coroutine_threadsafe(desk.broker.count(f"{unique}.dead"), loop).result()
            return found is not None and found.consumers > 0

        await asyncio.to_thread(killed_when, is_read, "dead", *show, folder=tmp_path, env=env)
        letters = await contents(desk, f"{unique}.dead")

    assert [letter.message.body for letter in letters] == bodies


async def test_a_worn_queue_is_left_alone(settings: Settings, unique: str, tmp_path: Path) -> None:
    """Queues that others declared may have RabbitMQ 4's limit of 20 deliveries, and drop what passes it."""
    ours, theirs = f"{unique}.ours.dead", f"{unique}.theirs.dead"
    async with a_broker(settings) as broker:
        await broker.declare(Topology(queues=(resting_queue(ours), Queue(theirs, {"x-queue-type": "quorum"}))))
        for queue in (ours, theirs):
            await broker.publish(Message(b"{}", "", queue, message_id="m"), timeout=10)
        async with a_desk(settings, tmp_path, broker) as desk:
            for _ in range(16):
                await desk.read(ours)
            for _ in range(15):
                await desk.read(theirs)

            with pytest.raises(WornOut, match="archive"):
                await desk.read(theirs)

            assert len(await contents(desk, ours)) == 1
            assert (await desk.read(theirs, worn_too=True)).count() == 1
