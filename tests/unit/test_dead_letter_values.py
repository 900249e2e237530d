"""Letters, archives, selections and the journal, without a broker."""

import json
import math
import sqlite3
import time
from collections.abc import Iterable
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from builders import NOON, a_message
from hypothesis import given
from hypothesis import strategies as st

from holdfast import ConfigurationError
from holdfast.broker.memory import MemoryBroker
from holdfast.dead_letters import ORDERS, Index, Journal, Pace, Selection, moment
from holdfast.dead_letters.archive import from_line, to_line
from holdfast.dead_letters.letter import Letter, key_of, read_letter
from holdfast.dead_letters.receipts import receiving
from holdfast.dead_letters.replay import replayed, target_of
from holdfast.events import Message, Receipt, read_receipt, receipt_message, replay_of
from holdfast.telemetry import neutral

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | TEXT
    | st.binary(max_size=20).map(bytearray)
    | st.decimals(allow_nan=False, allow_infinity=False)
    | st.datetimes(timezones=st.just(UTC)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT | st.just("$bytes"), inner, max_size=3),
    max_leaves=8,
)


@given(body=st.binary(max_size=200), headers=st.dictionaries(TEXT, VALUES, max_size=4), priority=st.none() | st.just(3))
def test_a_message_survives_the_archive_to_the_byte(body: bytes, headers: dict[str, Any], priority: int | None) -> None:
    message = a_message(body, headers=headers, priority=priority, timestamp=NOON)

    back, about = from_line(to_line(message, key="k", queue="q"))

    assert back == message
    assert about == {"key": "k", "queue": "q"}


def test_the_archive_leaves_out_no_field_of_a_message() -> None:
    texts = {field.name: field.name for field in fields(Message)}
    others = {"body": b"{}", "headers": {"a": 1}, "timestamp": NOON, "priority": 3}
    message = Message(**(texts | others))  # type: ignore[arg-type]

    assert from_line(to_line(message))[0] == message


NO_LETTERS = ["", "{}", "[1]", '{"holdfast-letter": 1}', '{"holdfast-letter": 1, "message": {}}', "x"]


@pytest.mark.parametrize("line", NO_LETTERS)
def test_a_line_that_is_no_letter_is_refused(line: str) -> None:
    with pytest.raises(ConfigurationError, match="not a line of an archive"):
        from_line(line)


def test_a_key_stays_when_a_letter_is_read_again_and_differs_for_other_letters() -> None:
    message = a_message(headers={"a": 1, "b": Decimal("1.5")})

    assert key_of(message) == key_of(a_message(headers={"b": Decimal("1.5"), "a": 1}, routing_key="elsewhere"))
    others = [a_message(headers={"a": 2}), a_message(b"other"), a_message(message_id="m-2"), a_message(type="x")]
    assert len({key_of(message), *map(key_of, others)}) == 5


def died(reason: str = "rejected", queue: str = "jobs", at: datetime = NOON) -> dict[str, Any]:
    return {"reason": reason, "queue": queue, "time": at, "count": 1, "exchange": "x", "routing-keys": ["job.run"]}


def letter(message: Message, position: int = 1) -> Letter:
    return read_letter(message, key=key_of(message), position=position)


def test_what_the_broker_wrote_last_counts_and_its_first_word_names_the_origin() -> None:
    message = a_message(
        type=None, routing_key="jobs.dlq", exchange="", headers={"x-death": [died("expired", "retry"), died()]}
    )

    found = letter(message)

    assert (found.reason, found.target, found.event_type) == ("expired", "retry", "job.run")
    assert (found.failed_at, found.error_type) == (NOON, "broker: expired")


@pytest.mark.parametrize("later", [False, True])
def test_of_two_deaths_the_later_one_is_told(later: bool) -> None:
    at = NOON + timedelta(hours=1 if later else -1)
    headers = {
        "holdfast-reason": "exhausted",
        "holdfast-failed-at": NOON.isoformat(),
        "x-death": [died("delivery_limit", at=at)],
    }

    assert letter(a_message(headers=headers)).reason == ("delivery-limit" if later else "exhausted")


@pytest.mark.parametrize(
    "headers",
    [
        {"x-death": "no list"},
        {"x-death": [1, {"time": 5, "queue": 7, "routing-keys": 3}]},
        {"holdfast-reason": 9, "holdfast-failed-at": "soon", "holdfast-traceback": ["x"]},
    ],
)
def test_headers_that_make_no_sense_are_passed_over(headers: dict[str, Any]) -> None:
    found = letter(a_message(headers=headers))

    assert found.traceback == ""
    assert isinstance(found.reason, str)


def test_a_replay_is_the_senders_message_alone_with_the_events_identity() -> None:
    headers = {"mine": 1, "CC": ["x"], "x-death": [died()], "holdfast-attempt": 5, "event-id": "e-1"}

    message = replayed(letter(a_message(headers=headers)), operation="replay-1", target="q", forced=False)

    assert replay_of(message.headers) == ("replay-1", letter(a_message(headers=headers)).key)
    assert set(message.headers) == {
        "mine", "event-id", "holdfast-replay", "holdfast-exchange", "holdfast-routing-key",
    }  # fmt: skip
    assert (message.exchange, message.routing_key) == ("", "q")
    assert message.message_id != "m-1"


def test_a_replay_goes_to_the_queue_the_letters_lie_beside() -> None:
    forged = letter(a_message(headers={"holdfast-queue": "somebody.elses", "holdfast-reason": "exhausted"}))

    assert target_of(forged, "billing.charge.dead") == "billing.charge"
    assert target_of(forged, "orders.dlq") == "somebody.elses"
    assert target_of(forged, "orders.dlq", "here") == "here"
    with pytest.raises(ConfigurationError, match="--to"):
        target_of(letter(a_message()), "orders.dlq")


@pytest.mark.parametrize("text", ["90s", "15m", "2h", "3d", "1w", "2026-01-02T11:00", "2026-01-02T11:00:00+00:00"])
def test_a_moment_is_a_span_or_a_time(text: str) -> None:
    assert moment(text, NOON) < NOON


def test_receipts_that_are_none_are_passed_over() -> None:
    receipt = Receipt("replay-1", "abc", "handled")

    assert read_receipt(receipt_message(receipt)) == receipt
    for body in (b"", b"[]", b"{}", b'{"outcome": "handled"}', b"x" * 20_000, b'{"outcome": ["x"]}'):
        assert read_receipt(Message(body)) is None


def test_the_journal_takes_the_best_word_on_a_letter_and_a_proof_of_publishing(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    name = journal.begin("replay", "q.dead", [("a", "f1"), ("b", "f2")], by="me", options={}).id

    journal.hear([Receipt(name, "a", "postponed", error="x", fingerprint="f1")])
    same = journal.same_failures(name)
    journal.hear([Receipt(name, "a", "handled"), Receipt(name, "a", "duplicate")])

    assert same == 1 and journal.same_failures(name) == 0
    [a, b] = journal.left(name)
    assert (a.state, a.published, b.state, b.published) == ("handled", True, "waiting", False)


@pytest.mark.parametrize(
    "hostile",
    ["\x1b]0;x\x07", "\x9b31m", "\u202eevil", "a\rb", "\ud800", "\u200b", "\ufeff", "\x00", "\u2066x"],
)
def test_nothing_in_a_text_is_obeyed_by_a_terminal(hostile: str) -> None:
    shown = neutral(hostile)

    assert shown.isascii() or shown.isprintable()
    assert shown.isprintable()


def test_twenty_thousand_letters_are_listed_and_filtered_within_a_second(tmp_path: Path) -> None:
    index = Index(tmp_path / "index")
    with index.rewriting():
        for base in range(0, 20_000, 1000):
            index.add(read_letter(_some_letter(n), key=f"{n:016x}", position=n + 1) for n in range(base, base + 1000))
    began = time.process_time()

    groups = index.groups()
    grouped = time.process_time()
    first = [one.position for one in index.letters(Selection(reason="refused", limit=50), skip=1000)]
    found = index.count(Selection(text="number 7"))
    by_id = keys(index, Selection(id=("event-19999",)))

    assert grouped - began < 1.0 and time.process_time() - grouped < 1.0
    assert sum(group.count for group in groups) == 20_000 and len(groups) == 10
    assert len(first) == 50 and found > 0 and by_id == [f"{19_999:016x}"]


@pytest.mark.parametrize("beyond", ["9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00"])
def test_a_time_beyond_the_calendar_is_none_and_hides_no_other_letter(beyond: str) -> None:
    headers = {"holdfast-reason": "exhausted", "holdfast-attempt": 2}
    forged = a_message(headers=headers | {"holdfast-failed-at": beyond, "holdfast-first-failed-at": beyond})
    index = Index(None)

    index.add([read_letter(forged, key="a", position=1), read_letter(_some_letter(1), key="b", position=2)])

    [letter] = index.letters(Selection(id=("a",)))
    assert (letter.failed_at, letter.first_failed_at) == (None, None)
    assert index.oldest() == NOON + timedelta(seconds=1) and len(index.groups()) == 2


@pytest.mark.parametrize("message", [{"body": 5}, {"body": "", "headers": [1]}, {"body": "", "headers": None}, 5])
def test_a_line_whose_message_is_of_another_shape_is_none(message: Any) -> None:
    with pytest.raises(ConfigurationError, match="not a line of an archive"):
        from_line(json.dumps({"holdfast-letter": 1, "queue": "q.dead", "message": message}))


def test_an_index_can_be_opened_and_read_while_another_rewrites_it(tmp_path: Path) -> None:
    index = Index(tmp_path / "index")
    index.add([read_letter(_some_letter(1), key="a", position=1)])

    with index.rewriting():
        other = Index(tmp_path / "index")
        seen = keys(other, Selection())
        other.close()

    assert (seen, keys(index, Selection())) == (["a"], [])


@pytest.mark.parametrize(
    ("words", "selected"),
    [("order 4711", "a"), ("4711 ORDER", "a"), ("müller", "b"), ("4712", ""), ("\\u00fc", ""), ("%", ""), ("zip", "c")],
)
def test_letters_are_selected_by_the_words_in_their_bodies(words: str, selected: str) -> None:
    index = Index(None)
    bodies = {"a": b'{"order":"4711"}', "b": b'{"name": "M\\u00fcller"}', "c": b"zip \xc3\xbc", "d": b"\xff4711 order"}
    index.add(read_letter(a_message(body), key=key, position=n) for n, (key, body) in enumerate(bodies.items(), 1))

    assert keys(index, Selection(payload=words)) == list(selected)


def test_letters_are_listed_in_the_order_that_is_asked_for() -> None:
    index = Index(None)
    index.add(read_letter(_some_letter(n), key=f"{n}", position=10 - n) for n in (1, 2, 3))

    orders = {order: "".join(one.key for one in index.letters(Selection(), order=order)) for order in ORDERS}
    second = [one.key for one in index.letters(Selection(limit=1), order="newest", skip=1)]

    assert orders == {"queue": "321", "newest": "321", "oldest": "123", "event": "321", "reason": "231", "error": "123"}
    assert second == ["2"]


def test_a_whole_key_does_not_mean_the_letters_that_are_alike() -> None:
    index = Index(None)
    index.add(read_letter(a_message(), key=key, position=n) for n, key in enumerate(("abc", "abc-2", "abcd"), 1))

    assert keys(index, Selection(id=("abc",))) == ["abc", "abcd"]
    assert keys(index, Selection(id=("abc-2",))) == ["abc-2"]


@pytest.mark.parametrize("text", ["99999999999d", "800000d", "9" * 5_000 + "s"])
def test_a_span_beyond_the_calendar_is_no_time(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is no time"):
        moment(text, NOON)


def test_letters_can_be_named_by_the_thousand() -> None:
    index = Index(None)
    index.add(read_letter(_some_letter(n), key=f"{n:016x}", position=n + 1) for n in range(3_000))

    by_key = keys(index, Selection(id=tuple(f"{n:016x}" for n in range(2_000))))
    by_event = keys(index, Selection(id=("event-7", "nothing")))

    assert len(by_key) == 2_000 and by_event == [f"{7:016x}"]


@pytest.mark.parametrize("pace", [{"rate": math.inf}, {"rate": math.nan}, {"rate": 0.0}, {"wait": math.nan}])
def test_a_pace_that_is_no_number_is_refused(pace: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="is not a number of"):
        Pace(**pace)


def keys(index: Index, selection: Selection) -> list[str]:
    """The keys of the letters that are selected."""
    return [key for key, _ in index.choose(selection).letters]


def _some_letter(n: int) -> Message:
    headers = {
        "event-id": f"event-{n}",
        "holdfast-reason": "refused" if n % 2 else "exhausted",
        "holdfast-error-type": "app.CardDeclined",
        "holdfast-error-message": f"number {n}",
        "holdfast-fingerprint": f"{n % 10:016x}",
        "holdfast-handler": "charge",
        "holdfast-queue": "billing.charge",
        "holdfast-failed-at": (NOON + timedelta(seconds=n)).isoformat(),
        "holdfast-worker": f"host {n % 3} holdfast/1.0",
    }
    return a_message(json.dumps({"order_id": str(n)}).encode(), headers=headers, message_id=f"m-{n}")


class FullJournal(Journal):
    """One on a disk that is full."""

    def hear(self, receipts: Iterable[Receipt]) -> None:
        raise sqlite3.OperationalError("database or disk is full")


async def test_receipts_that_cannot_be_noted_end_their_operation() -> None:
    broker = MemoryBroker(None)
    async with receiving(broker, "op", Journal(None), lambda: None):
        pass
    await broker.publish(receipt_message(Receipt("op", "letter", "handled")), timeout=1)

    with pytest.raises(sqlite3.OperationalError):
        async with receiving(broker, "op", FullJournal(None), lambda: None):
            pass
    await broker.close()
