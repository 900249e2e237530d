"""The dead-letter page: what it shows, what it does, and whom it lets do so."""

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from apps import copy_app
from browsing import BASE, Visitor, a_visitor
from commands import Running, environment, holdfast
from morgue import Morgue, a_desk, contents
from running import a_broker, running
from waiting import LIMIT, eventually

from holdfast import Settings
from holdfast.broker import Queue, Topology
from holdfast.cli.dead.rehearsal import rehearse_in_child
from holdfast.config import DashboardSettings
from holdfast.dashboard import Access, listen
from holdfast.dead_letters import DeadLetters, Edit, Letter, Rehearsal, Selection
from holdfast.dead_letters.archive import from_line
from holdfast.events import ConfigurationError, HoldfastError, Message
from holdfast.telemetry import Connected, Disconnected

TOKEN, OPERATORS = "look-but-do-not-touch", "may-replay-and-discard"
HOSTILE = [
    b"<script>document.title = 'owned'</script>",
    b"\x1b[31mred \x00 \xe2\x80\xae reversed",
    b"\xff\xfe\x00binary" * 40,
    b'{"a": "</pre><img src=x onerror=alert(1)>"}',
    b'{"long": "' + b"x" * 1_000_000 + b'"}',
    b"",
]


@pytest.fixture
def morgue(settings: Settings, unique: str) -> Morgue:
    return Morgue(settings, unique)


@pytest.fixture
async def desk(settings: Settings, tmp_path: Path) -> AsyncIterator[DeadLetters]:
    async with a_desk(settings, tmp_path) as opened:
        yield opened


async def until_over(desk: DeadLetters, name: str) -> str:
    await eventually(lambda: desk.journal.operation(name).state in ("done", "stopped", "cancelled"))
    return desk.journal.operation(name).state


async def until_shown(visitor: Visitor, address: str, text: str) -> str:
    """Return a page once this text is on it."""

    async def shown() -> bool:
        return text in (await visitor.get(address)).text

    await eventually(shown)
    return (await visitor.get(address)).text


async def with_letters(
    settings: Settings, queue: str, *bodies: bytes, type_: str = "odd", **headers: str
) -> None:  # fmt: skip
    """Put messages of other software into a dead-letter queue."""
    async with a_broker(settings) as broker:
        await broker.declare(Topology(queues=(Queue(queue, {"x-queue-type": "quorum"}),)))
        for body in bodies:
            await broker.publish(Message(body, "", queue, headers=headers, type=type_), timeout=LIMIT)


# What it shows


async def test_queues_groups_and_letters_are_shown(morgue: Morgue, desk: DeadLetters) -> None:
    await morgue.fill("o-1", "o-2", "o-3")
    await desk.read(morgue.dead)
    [first, *_] = await contents(desk, morgue.dead)

    async with a_visitor(desk) as visitor:
        queues = await visitor.get("/")
        queue = await visitor.get(f"/queues/{morgue.dead}")
        letter = await visitor.get(f"/queues/{morgue.dead}/letters/{first.key}")

    assert morgue.dead in queues.text
    assert "<b>3</b> letters" in queue.text and "CardDeclined" in queue.text and "<svg" in queue.text
    assert first.event_id in letter.text and "Traceback (most recent call last)" in letter.text


async def test_a_queue_that_was_never_read_is_read_and_says_how_far_it_is(morgue: Morgue, desk: DeadLetters) -> None:
    await morgue.fill("o-1")

    async with a_visitor(desk) as visitor:
        first = (await visitor.get(f"/queues/{morgue.dead}")).text
        shown = await until_shown(visitor, f"/queues/{morgue.dead}", 'data-refresh="15"')

    assert "Reading the queue: <b>0</b> letters" in first and 'data-refresh="1"' in first
    assert "Reading the queue" not in shown and "<b>1</b> letter" in shown


async def test_filters_and_pages_narrow_what_is_shown(settings: Settings, desk: DeadLetters, unique: str) -> None:
    queue = f"{unique}.dead"
    await with_letters(settings, queue, *(b"%d" % n for n in range(60)))
    await desk.read(queue)

    async with a_visitor(desk) as visitor:
        first = await visitor.get(f"/queues/{queue}")
        second = await visitor.get(f"/queues/{queue}?page=2")
        none = await visitor.get(f"/queues/{queue}?reason=crashed")
        odd = await visitor.get(f"/queues/{queue}?since=never")

    assert (first.text.count("<tr data-row>"), second.text.count("<tr data-row>")) == (50, 10)
    assert "No letter matches" in none.text
    assert odd.status_code == 400 and "is no time" in odd.text


@pytest.mark.parametrize("body", HOSTILE, ids=range(len(HOSTILE)))
async def test_a_hostile_letter_is_text(settings: Settings, desk: DeadLetters, unique: str, body: bytes) -> None:
    queue = f"{unique}.dead"
    await with_letters(settings, queue, body, **{"holdfast-error-message": "<script>alert(1)</script>\x1b[2J"})
    [letter] = await contents(desk, queue)

    async with a_visitor(desk) as visitor:
        listed = await visitor.get(f"/queues/{queue}")
        shown = await visitor.get(f"/queues/{queue}/letters/{letter.key}")
        kept = await visitor.get(f"/queues/{queue}/letters/{letter.key}/body")

    for page in (listed, shown):
        assert page.status_code == 200 and len(page.content) < 120_000
        assert "<script>" not in page.text and "<img src=x" not in page.text
        assert "\x1b" not in page.text and "\u202e" not in page.text
    assert kept.content == body
    assert kept.headers["content-type"] == "application/octet-stream"
    assert kept.headers["content-disposition"].startswith("attachment")


async def test_what_is_not_there_is_told_on_a_page(desk: DeadLetters, unique: str) -> None:
    async with a_visitor(desk) as visitor:
        answers = [await visitor.get(path) for path in (f"/queues/{unique}.none", "/operations/none", "/nowhere")]

    assert [answer.status_code for answer in answers] == [400, 400, 404]
    assert all("That did not work" in answer.text for answer in answers)


async def test_letters_are_listed_the_newest_first_and_sorted_as_asked(morgue: Morgue, desk: DeadLetters) -> None:
    await morgue.fill("o-1")
    await morgue.fill("o-2")
    first, second = await contents(desk, morgue.dead)

    async with a_visitor(desk) as visitor:
        newest, oldest, odd = [
            (await visitor.get(f"/queues/{morgue.dead}{query}")).text for query in ("", "?sort=oldest", "?sort=up")
        ]

    assert newest.index(second.key) < newest.index(first.key) and odd.index(second.key) < odd.index(first.key)
    assert oldest.index(first.key) < oldest.index(second.key) and 'aria-sort="ascending"' in oldest


async def test_a_letter_is_looked_for_by_its_body_and_its_chain_in_all_queues(
    morgue: Morgue, desk: DeadLetters
) -> None:
    await morgue.fill("o-4711", "o-4712")
    first, second = await contents(desk, morgue.dead)

    async with a_visitor(desk) as visitor:
        here = await visitor.get(f"/queues/{morgue.dead}?payload=order+4711")
        everywhere = await visitor.get("/search?payload=order+4711")
        letter = await visitor.get(f"/queues/{morgue.dead}/letters/{second.key}")
        chain = await visitor.get(f"/search?correlation={second.correlation_id}")
        groups = await visitor.get(f"/search?text={morgue.queue}")

    for page in (here, everywhere):
        assert first.key in page.text and second.key not in page.text
    assert f'href="/search?correlation={second.correlation_id}"' in letter.text
    assert second.key in chain.text and first.key not in chain.text and f"1 in {morgue.dead}" in chain.text
    assert "No letter matches" in groups.text


async def test_while_the_broker_is_down_every_page_says_so_at_once(desk: DeadLetters, unique: str) -> None:
    desk.outage(Disconnected("consume", "amqp://rabbit:5672/", "connection refused", 1.0))

    async with a_visitor(desk) as visitor:
        down = [await visitor.get(path) for path in ("/", f"/queues/{unique}.dead")]
        desk.outage(Connected("consume", "amqp://rabbit:5672/", "RabbitMQ"))
        up = await visitor.get("/")

    assert [page.status_code for page in down] == [503, 400] and up.status_code == 200
    assert all("amqp://rabbit:5672/ is unavailable: connection refused" in page.text for page in down)


# What it does


async def test_letters_that_are_selected_are_edited_together(morgue: Morgue, desk: DeadLetters) -> None:
    await morgue.fill("o-1", "o-2", "o-3")
    chosen = [letter.key for letter in await contents(desk, morgue.dead)][:2]
    query = "?chosen=1&" + "&".join(f"id={key}" for key in chosen)
    morgue.charge.mended = True

    def reader_of(queue: str, to: str | None) -> object:
        def read(letter: Letter, edit: Edit | None) -> None:
            if edit is not None and b"o-" in edit.body_of(letter.message):
                raise HoldfastError("order: begins with o")

        return read

    async with running(morgue.worker()), a_visitor(desk, reader_of=reader_of) as visitor:
        listed = await visitor.get(f"/queues/{morgue.dead}")
        address = f"/queues/{morgue.dead}/edit{query}"
        asked = await visitor.get(address)
        nothing = await visitor.post(address, find="", put="x")
        refused = await visitor.post(address, find="order", put="order")
        begun = await visitor.post(address, find="o-", put="p-", headers="ticket: T-1")
        state = await until_over(desk, begun.headers["location"].rpartition("/")[2])
        left = await contents(desk, morgue.dead)

    assert all(f'name="id" value="{key}"' in listed.text for key in chosen) and 'formaction="/queues/' in listed.text
    assert "Edit and replay 2 letters" in asked.text
    assert (nothing.status_code, refused.status_code) == (400, 400) and "begins with o" in refused.text
    assert (state, morgue.charge.effects, len(left)) == ("done", {"p-1": 1, "p-2": 1}, 1)


async def test_letters_that_are_selected_are_replayed_and_discarded_and_none_is_not_all(
    morgue: Morgue, desk: DeadLetters
) -> None:
    await morgue.fill("o-1", "o-2", "o-3")
    first, second, _ = [letter.key for letter in await contents(desk, morgue.dead)]

    async with a_visitor(desk) as visitor:
        asked = [
            (await visitor.get(f"/queues/{morgue.dead}/{what}?chosen=1&id={first}&id={second}")).text
            for what in ("replay", "discard")
        ]
        none = [await visitor.get(f"/queues/{morgue.dead}/{what}?chosen=1") for what in ("replay", "discard", "edit")]

    assert "Replay 2 letters?" in asked[0] and "Discard 2 letters?" in asked[1]
    assert all(page.status_code == 400 and "no letter is selected" in page.text for page in none)


async def test_letters_are_replayed_with_progress_and_confirmed_by_the_worker(
    morgue: Morgue, desk: DeadLetters
) -> None:
    await morgue.fill("o-1", "o-2")
    await desk.read(morgue.dead)
    morgue.charge.mended = True

    async with running(morgue.worker()), a_visitor(desk) as visitor:
        asked = await visitor.get(f"/queues/{morgue.dead}/replay")
        begun = await visitor.post(f"/queues/{morgue.dead}/replay")
        name = begun.headers["location"].rpartition("/")[2]
        moving = await visitor.get(f"/operations/{name}")
        shown = await until_shown(visitor, f"/operations/{name}", 'class="state done"')
        listed = await visitor.get("/operations")

    assert "Replay 2 letters?" in asked.text and begun.status_code == 303
    assert 'data-refresh="1"' in moving.text and "data-refresh" not in shown
    assert "<b>2</b> handled" in shown and "2 handled" in listed.text and morgue.charge.effects == {"o-1": 1, "o-2": 1}


async def test_a_discard_wants_the_number_typed_and_keeps_an_archive(morgue: Morgue, desk: DeadLetters) -> None:
    await morgue.fill("o-1", "o-2")
    await desk.read(morgue.dead)

    async with a_visitor(desk) as visitor:
        await visitor.get(f"/queues/{morgue.dead}/discard")
        mistyped = await visitor.post(f"/queues/{morgue.dead}/discard", count="3")
        begun = await visitor.post(f"/queues/{morgue.dead}/discard", count="2")
        name = begun.headers["location"].rpartition("/")[2]
        state = await until_over(desk, name)
        audit = await visitor.get("/audit")

    assert mistyped.status_code == 400 and state == "done"
    assert len(desk.archive_of(desk.journal.operation(name)).read_text().splitlines()) == 2
    assert await contents(desk, morgue.dead) == []
    assert "discard" in audit.text


@pytest.mark.parametrize(
    ("what", "form"),
    [("replay", {}), ("replay", {"limit": "1"}), ("discard", {"count": "2"}), ("edit", {"find": "o-", "put": "p-"})],
)
async def test_letters_that_changed_after_they_were_shown_are_shown_again(
    what: str, form: dict[str, str], morgue: Morgue, desk: DeadLetters
) -> None:
    """For the discard somebody guesses their number."""
    await morgue.fill("o-1")
    await desk.read(morgue.dead)
    address = f"/queues/{morgue.dead}/{what}"

    async with a_visitor(desk) as visitor:
        await visitor.get(address)
        await morgue.fill("o-2")
        await desk.read(morgue.dead)
        refused = await visitor.post(address, **form)
        before = desk.journal.operations()
        await visitor.get(address)
        begun = await visitor.post(address, **form)

    assert refused.status_code == 400 and "they are 2 now" in refused.text
    assert (before, begun.status_code) == ([], 303)


@pytest.mark.parametrize("what", ["replay", "edit", "discard"])
async def test_a_form_counts_spans_of_time_from_when_it_was_asked_for(
    what: str, morgue: Morgue, desk: DeadLetters
) -> None:
    await morgue.fill("o-1")
    await desk.read(morgue.dead)

    async with a_visitor(desk) as visitor:
        shown = await visitor.get(f"/queues/{morgue.dead}/{what}?since=2h&handler=charge")

    assert shown.status_code == 200 and 'name="digest"' in shown.text
    assert "since=2h" not in str(shown.url) and "handler=charge" in str(shown.url)


async def test_what_was_discarded_is_restored_from_its_archive(morgue: Morgue, desk: DeadLetters) -> None:
    await morgue.fill("o-1", "o-2")
    await desk.read(morgue.dead)

    async with a_visitor(desk) as visitor:
        await visitor.get(f"/queues/{morgue.dead}/discard")
        begun = await visitor.post(f"/queues/{morgue.dead}/discard", count="2")
        await until_over(desk, begun.headers["location"].rpartition("/")[2])
        listed = await visitor.get("/archives")
        [name] = [path.name for path in desk.folder.glob("archive/*.ndjson")]
        elsewhere = await visitor.post("/archives/..%2Fjournal.sqlite/restore")
        await visitor.post(f"/archives/{name}/restore")
        [restoring] = [each for each in desk.journal.operations() if each.kind == "import"]
        state = await until_over(desk, restoring.id)
        kept = await visitor.get(f"/archives/{name}")

    assert name in listed.text and elsewhere.status_code == 404
    assert state == "done" and len(await contents(desk, morgue.dead)) == 2
    assert len(kept.text.splitlines()) == 2 and kept.headers["content-disposition"].startswith("attachment")


async def test_letters_are_exported_as_they_are_and_stay(morgue: Morgue, desk: DeadLetters) -> None:
    await morgue.fill("o-1", "o-2")
    first, second = await contents(desk, morgue.dead)

    async with a_visitor(desk) as visitor:
        every = await visitor.get(f"/queues/{morgue.dead}/export")
        one = await visitor.get(f"/queues/{morgue.dead}/export?id={second.key}")

    assert [from_line(line)[0].body for line in every.text.splitlines()] == [first.message.body, second.message.body]
    assert [from_line(line)[1] for line in one.text.splitlines()] == [{"key": second.key, "queue": morgue.dead}]
    assert len(await contents(desk, morgue.dead)) == 2


@pytest.mark.parametrize("limit", ["1,000", "1 000", "-5", "0", "abc", "1.5"])
async def test_a_limit_that_is_no_whole_number_is_refused_and_nothing_is_done(
    limit: str, morgue: Morgue, desk: DeadLetters
) -> None:
    async def rehearse(queue: str, selection: Selection) -> Rehearsal:
        return Rehearsal()

    await morgue.fill("o-1")
    await desk.read(morgue.dead)

    async with a_visitor(desk, rehearse=rehearse) as visitor:
        await visitor.get(f"/queues/{morgue.dead}/replay")
        replayed = await visitor.post(f"/queues/{morgue.dead}/replay", limit=limit)
        shown = await visitor.post(f"/queues/{morgue.dead}/replay", limit=limit, dry_run="1")
        ran = await visitor.post(f"/queues/{morgue.dead}/check/run", limit=limit, understood="1")

    assert [answer.status_code for answer in (replayed, shown, ran)] == [400] * 3
    assert all("is not a whole number of letters" in answer.text for answer in (replayed, shown, ran))
    assert desk.journal.operations() == []


async def test_zero_letters_a_second_are_refused_and_zero_seconds_do_not_wait(
    morgue: Morgue, desk: DeadLetters
) -> None:
    await morgue.fill("o-1", "o-2")
    await desk.read(morgue.dead)

    async with a_visitor(desk) as visitor:
        await visitor.get(f"/queues/{morgue.dead}/replay")
        refused = await visitor.post(f"/queues/{morgue.dead}/replay", rate="0")
        begun = await visitor.post(f"/queues/{morgue.dead}/replay", wait="0")
        name = begun.headers["location"].rpartition("/")[2]
        await eventually(lambda: desk.journal.operation(name).state == "waiting")

    assert refused.status_code == 400 and "rate=0 is not a number of letters a second" in refused.text
    assert [operation.counts for operation in desk.journal.operations()] == [{"sent": 2}]


async def test_a_dry_run_names_the_letters_and_where_they_would_go_and_sends_none(
    morgue: Morgue, desk: DeadLetters
) -> None:
    await morgue.fill("o-1", "o-2")
    first, second = await contents(desk, morgue.dead)

    async with a_visitor(desk) as visitor:
        await visitor.get(f"/queues/{morgue.dead}/replay")
        shown = await visitor.post(f"/queues/{morgue.dead}/replay", limit="1", rate="5", dry_run="1")
        odd = await visitor.post(f"/queues/{morgue.dead}/replay", rate="quick")

    assert "Nothing was sent" in shown.text and f"<code>{morgue.queue}</code>" in shown.text
    assert first.key in shown.text and second.key not in shown.text and 'value="5"' in shown.text
    assert odd.status_code == 400 and "not a number of letters a second" in odd.text
    assert desk.journal.operations() == []


async def test_an_edit_is_checked_against_the_schema_before_it_is_sent(morgue: Morgue, desk: DeadLetters) -> None:
    await morgue.fill("o-1")
    [letter] = await contents(desk, morgue.dead)
    morgue.charge.mended = True

    def reader_of(queue: str, to: str | None) -> object:
        def read(letter: Letter, edit: Edit | None) -> None:
            if edit is not None and b"order" not in edit.body:
                raise HoldfastError("order: Field required")

        return read

    async with running(morgue.worker()), a_visitor(desk, reader_of=reader_of) as visitor:
        address = f"/queues/{morgue.dead}/letters/{letter.key}/edit"
        await visitor.get(address)
        refused = await visitor.post(address, body='{"other": 1}')
        begun = await visitor.post(address, body='{"order": "o-9"}', headers_="", headers="tenant: blue")
        state = await until_over(desk, begun.headers["location"].rpartition("/")[2])

    assert refused.status_code == 400 and "Field required" in refused.text and "&#34;other&#34;" in refused.text
    assert state == "done" and morgue.charge.effects == {"o-9": 1}


async def test_what_if_says_how_many_would_be_read(morgue: Morgue, desk: DeadLetters) -> None:
    await morgue.fill("o-1", "o-2")
    await desk.read(morgue.dead)

    def reader_of(queue: str, to: str | None) -> object:
        def read(letter: Letter, edit: Edit | None) -> None:
            if b"o-2" in letter.message.body:
                raise HoldfastError("order: too old")

        return read

    async with a_visitor(desk, reader_of=reader_of) as visitor:
        shown = await visitor.get(f"/queues/{morgue.dead}/check")
    async with a_visitor(desk) as visitor:
        unknown = await visitor.get(f"/queues/{morgue.dead}/check")

    assert "<b>1</b> would be read, <b>1</b> would not" in shown.text and "too old" in shown.text
    assert unknown.status_code == 404 and "--worker MODULE:WORKER" in unknown.text


async def test_the_handler_is_run_on_letters_in_a_process_of_its_own(
    settings: Settings, tmp_path: Path, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it publishes is caught, what it prints is not taken for an answer, and the page outlives it."""
    copy_app("charging", tmp_path, NAME=unique)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOLDFAST_BROKER__URL", settings.broker.url.get_secret_value())
    monkeypatch.setenv("HOLDFAST_DEAD_LETTERS__FOLDER", str(tmp_path / "state"))
    queue, run = f"{unique}.charge.dead", partial(rehearse_in_child, "app:worker")

    async with a_desk(settings, tmp_path / "state") as desk:
        bodies = [b'{"order": "o-1"}', b'{"order": "o-2"}', b'{"order": "kill"}']
        await with_letters(settings, queue, *bodies, type_=f"{unique}.order")
        await desk.read(queue)
        async with a_visitor(desk, reader_of=lambda queue, to: lambda letter, edit: None, rehearse=run) as visitor:
            unasked = await visitor.get(f"/queues/{queue}/check")
            unsaid = await visitor.post(f"/queues/{queue}/check/run", limit="2")
            ran = await tried(visitor, queue, limit="2")
            killed = await tried(visitor, queue)
        letters = await contents(desk, queue)

    assert "whatever else it does is done" in unasked.text and unsaid.status_code == 400
    assert "<b>1</b> would be handled, <b>1</b> would not" in ran.text
    assert f"1 {unique}.paid" in ran.text and "ValueError: no such order" in ran.text
    assert "the run was broken off (exit code 9)" in killed.text
    assert len(letters) == 3


async def tried(visitor: Visitor, queue: str, **fields: str) -> httpx.Response:
    """What the page says once the handler has run."""
    await visitor.post(f"/queues/{queue}/check/run", understood="on", **fields)
    await eventually(partial(is_over, visitor, f"/queues/{queue}/check"))
    return await visitor.get(f"/queues/{queue}/check")


async def is_over(visitor: Visitor, address: str) -> bool:
    """Whether a page follows nothing any more."""
    return 'data-refresh="1"' not in (await visitor.get(address)).text


async def test_an_operation_can_be_cancelled_and_one_that_was_paused_resumed(morgue: Morgue, desk: DeadLetters) -> None:
    await morgue.fill("o-1", "o-2")
    await desk.read(morgue.dead)
    first, second = desk.replay(morgue.dead, Selection(limit=1)), desk.discard(morgue.dead, Selection())
    desk.journal.change(second.id, "paused")

    async with a_visitor(desk) as visitor:
        await visitor.get(f"/operations/{first.id}")
        await visitor.post(f"/operations/{first.id}/cancel")
        await visitor.get(f"/operations/{second.id}")
        await visitor.post(f"/operations/{second.id}/resume")
        state = await until_over(desk, second.id)
        listed = await visitor.get("/operations")

    assert (desk.journal.operation(first.id).state, state) == ("cancelled", "done")
    assert first.id in listed.text and second.id in listed.text


async def test_a_note_stays_on_its_group(morgue: Morgue, desk: DeadLetters) -> None:
    await morgue.fill("o-1")
    [letter] = await contents(desk, morgue.dead)

    async with a_visitor(desk) as visitor:
        await visitor.get(f"/queues/{morgue.dead}")
        await visitor.post(f"/queues/{morgue.dead}/note", fingerprint=letter.fingerprint, text="the bank <b>knows</b>")
        shown = await visitor.get(f"/queues/{morgue.dead}")

    assert "the bank &lt;b&gt;knows&lt;/b&gt;" in shown.text


# Whom it lets do so


async def test_every_answer_forbids_what_the_page_does_not_need(desk: DeadLetters) -> None:
    async with a_visitor(desk) as visitor:
        answers = [await visitor.get(path) for path in ("/", "/static/page.js", "/nowhere", "/login")]

    for answer in answers:
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "<script>" not in answer.text and "style=" not in answer.text and "onclick" not in answer.text


ACTIONS = ["replay", "discard", "note", "check/run", "keys/skip", "keys/retry"]


@pytest.mark.parametrize("action", ACTIONS)
async def test_who_may_only_look_changes_nothing(morgue: Morgue, desk: DeadLetters, action: str) -> None:
    await morgue.fill("o-1")
    await desk.read(morgue.dead)

    async with a_visitor(desk, Access(role="viewer")) as visitor:
        page = await visitor.get(f"/queues/{morgue.dead}")
        answer = await visitor.post(f"/queues/{morgue.dead}/{action}", count="1", fingerprint="x", text="y")

    assert "Replay" not in page.text and "Discard" not in page.text
    assert answer.status_code == 403 and "operator" in answer.text
    assert desk.journal.operations() == []


async def test_who_may_only_look_can_have_the_queue_read_again(morgue: Morgue, desk: DeadLetters) -> None:
    await morgue.fill("o-1")
    await desk.read(morgue.dead)
    await morgue.fill("o-2")

    async with a_visitor(desk, Access(role="viewer")) as visitor:
        await visitor.get(f"/queues/{morgue.dead}")
        answer = await visitor.post(f"/queues/{morgue.dead}/read")
        await until_shown(visitor, f"/queues/{morgue.dead}", "<b>2</b> letters")
        forged = await visitor.post(f"/queues/{morgue.dead}/read", csrf="0" * 64)

    assert (answer.status_code, forged.status_code) == (303, 403)


async def test_a_replay_that_failed_again_is_not_shown_as_done(morgue: Morgue, desk: DeadLetters) -> None:
    await morgue.fill("o-1")
    await desk.read(morgue.dead)

    async with running(morgue.worker()), a_visitor(desk) as visitor:
        await visitor.get(f"/queues/{morgue.dead}/replay")
        begun = await visitor.post(f"/queues/{morgue.dead}/replay", keep_going="on")
        shown = await until_shown(visitor, begun.headers["location"], 'class="state failed"')
        listed = await visitor.get("/operations")

    assert "state done" not in shown and "state failed" in listed.text


async def test_a_queue_that_is_not_for_dead_letters_is_not_shown(
    settings: Settings, desk: DeadLetters, unique: str
) -> None:
    await with_letters(settings, f"{unique}.payroll", b"salaries", type_="secret")

    async with a_visitor(desk) as visitor:
        answers = [
            await visitor.get(f"/queues/{unique}.payroll{below}") for below in ("", "/export", "/discard", "/replay")
        ]

    assert {answer.status_code for answer in answers} == {400}
    assert all("not a dead-letter queue" in answer.text and "salaries" not in answer.text for answer in answers)


@pytest.mark.parametrize(
    ("headers", "csrf"),
    [
        ({"origin": "http://evil.example"}, None),
        ({"origin": "null"}, None),
        ({"origin": "", "referer": "http://evil.example/page"}, None),
        ({}, "0" * 64),
        ({}, ""),
    ],
)
async def test_a_form_from_elsewhere_is_refused(
    morgue: Morgue, desk: DeadLetters, headers: dict[str, str], csrf: str | None
) -> None:
    await morgue.fill("o-1")
    await desk.read(morgue.dead)

    async with a_visitor(desk) as visitor:
        await visitor.get(f"/queues/{morgue.dead}/replay")
        fields = {} if csrf is None else {"csrf": csrf}
        answer = await visitor.post(f"/queues/{morgue.dead}/replay", headers, **fields)

    assert answer.status_code == 403
    assert desk.journal.operations() == []


async def test_another_host_name_is_refused_where_no_token_guards_the_page(desk: DeadLetters) -> None:
    async with a_visitor(desk) as visitor:
        answer = await visitor.client.get("/", headers={"host": "rebound.example:9465"})

    assert answer.status_code == 403


async def test_with_tokens_nothing_is_shown_before_one_is_given(morgue: Morgue, desk: DeadLetters) -> None:
    await morgue.fill("o-1")
    await desk.read(morgue.dead)
    access = Access(token=TOKEN, operator_token=OPERATORS)

    async with a_visitor(desk, access) as visitor:
        before = await visitor.client.get(f"/queues/{morgue.dead}")
        wrong = await visitor.post("/login", token="guess")
        await visitor.post("/login", token=TOKEN)
        looking = await visitor.get(f"/queues/{morgue.dead}")
        await visitor.post("/login", token=OPERATORS)
        acting = await visitor.get(f"/queues/{morgue.dead}")
        cookie = (await visitor.post("/login", token=TOKEN)).headers["set-cookie"]

    assert (before.status_code, before.headers["location"], wrong.status_code) == (303, "/login", 403)
    assert "Replay" not in looking.text and "Replay" in acting.text and "Log out" in looking.text
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and TOKEN not in cookie


async def test_a_cookie_that_was_changed_is_nobodys(desk: DeadLetters) -> None:
    async with a_visitor(desk, Access(token=TOKEN, operator_token=OPERATORS)) as visitor:
        await visitor.post("/login", token=TOKEN)
        [(name, value)] = visitor.client.cookies.items()
        visitor.client.cookies.set(name, value.replace("viewer", "operator"))
        answer = await visitor.client.get("/")

    assert answer.headers["location"] == "/login"


async def test_a_cookie_and_a_form_token_of_any_bytes_are_refused(desk: DeadLetters) -> None:
    async with a_visitor(desk, Access(token=TOKEN)) as visitor:
        cookie = await visitor.client.get("/", headers={"cookie": b"holdfast_session=a.viewer.1.\xe9"})
    async with a_visitor(desk) as visitor:
        await visitor.get("/")
        form = await visitor.post("/queues/any/read", csrf="é")

    assert (cookie.status_code, cookie.headers["location"]) == (303, "/login")
    assert form.status_code == 403


@pytest.mark.parametrize("path", ["//elsewhere.example/", "////elsewhere.example/", "/%2Felsewhere.example/"])
async def test_whoever_is_let_in_stays_on_this_host(desk: DeadLetters, path: str) -> None:
    async with a_visitor(desk) as visitor:
        answer = await visitor.client.get(f"{BASE}{path}")

    assert answer.headers["location"] == "/elsewhere.example/"


async def test_a_form_leads_back_to_its_queue_whatever_that_is_called(
    settings: Settings, desk: DeadLetters, unique: str
) -> None:
    queue = f"{unique}#a.dead"
    await with_letters(settings, queue, b"{}")

    async with a_visitor(desk) as visitor:
        await visitor.get(f"/queues/{quote(queue)}")
        answer = await visitor.post(f"/queues/{quote(queue)}/note", fingerprint="f", text="seen")
        back = await visitor.get(answer.headers["location"])

    assert back.status_code == 200 and f"<h1>{queue}</h1>" in back.text


async def test_an_archive_that_cannot_be_written_is_told_on_the_page_and_keeps_the_letters(
    morgue: Morgue, desk: DeadLetters
) -> None:
    await morgue.fill("o-1")
    await desk.read(morgue.dead)
    (desk.folder / "archive").rmdir()

    async with a_visitor(desk) as visitor:
        await visitor.get(f"/queues/{morgue.dead}/discard")
        begun = await visitor.post(f"/queues/{morgue.dead}/discard", count="1")
        name = begun.headers["location"].rpartition("/")[2]
        await eventually(lambda: desk.journal.operation(name).detail, "interrupted")
        shown = await visitor.get(begun.headers["location"])

    assert "It was broken off" in shown.text and "No such file or directory" in shown.text
    assert len(await contents(desk, morgue.dead)) == 1


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_beyond_loopback_a_token_is_needed(host: str) -> None:
    with pytest.raises(ConfigurationError, match="HOLDFAST_DASHBOARD__TOKEN"):
        listen(DashboardSettings(host=host, port=0))


def test_a_port_that_is_taken_is_told_with_its_setting() -> None:
    with listen(DashboardSettings(port=0)) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(ConfigurationError, match=f"HOLDFAST_DASHBOARD__PORT: port {port}"):
            listen(DashboardSettings(port=port))


async def test_a_form_beyond_all_bounds_is_refused(morgue: Morgue, desk: DeadLetters) -> None:
    await morgue.fill("o-1")
    [letter] = await contents(desk, morgue.dead)

    async with a_visitor(desk) as visitor:
        address = f"/queues/{morgue.dead}/letters/{letter.key}/edit"
        await visitor.get(address)
        answer = await visitor.client.post(
            address, content=b"body=" + b"x" * (5 << 20),
            headers={"origin": BASE, "content-type": "application/x-www-form-urlencoded"},
        )  # fmt: skip

    assert answer.status_code == 413


# The command


def test_the_command_serves_until_it_is_told_to_stop_and_names_what_is_wrong(
    settings: Settings, tmp_path: Path, unique: str
) -> None:
    copy_app("two_queues", tmp_path, NAME=unique)
    env = environment(
        HOLDFAST_BROKER__URL=settings.broker.url.get_secret_value(),
        HOLDFAST_DEAD_LETTERS__FOLDER=str(tmp_path / "state"),
        HOLDFAST_DASHBOARD__PORT="0",
    )

    with Running("dashboard", "--operator", "--worker", "app:worker", "--port", "0", folder=tmp_path, env=env) as page:
        page.until(lambda log: "dead letters at http" in log)
        address = page.log.split("dead letters at ")[1].split()[0]
        shown = httpx.get(address + "audit", follow_redirects=True, timeout=30)
        code = page.stop()
    exposed = holdfast("dashboard", folder=tmp_path, env=env | {"HOLDFAST_DASHBOARD__HOST": "0.0.0.0"})

    assert shown.status_code == 200 and "operator" in shown.text
    assert code in (0, -15)
    assert (
        exposed.returncode == 1 and "HOLDFAST_DASHBOARD__TOKEN" in exposed.stderr and "Traceback" not in exposed.stderr
    )
