"""What copies carry, and what they must not."""

import re
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from builders import NOON, a_history, a_message, an_incoming, some_metadata
from hypothesis import given
from hypothesis import strategies as st

from holdfast import Event
from holdfast.broker import headers_size
from holdfast.consumer.copies import dead_letter, postponed_copy
from holdfast.consumer.failure import describe_failure, summary
from holdfast.consumer.outcome import DeadLetter, Postpone
from holdfast.events import Message, Unreadable, decode, decoder_for, read_history, read_metadata
from holdfast.events import headers as h

BUDGET = 126_976


def a_copy(message: Message, *, attempt: int = 1, error: BaseException | None = None, budget: int = BUDGET) -> Message:
    decision = Postpone(1.0, error or ValueError("x"))
    return postponed_copy(an_incoming(message, a_history(attempt)), decision, queue="q", now=NOON, budget=budget)


def a_letter(message: Message, *, error: BaseException | None = None, budget: int = BUDGET) -> Message:
    decision = DeadLetter("exhausted", error or ValueError("x"))
    incoming = an_incoming(message, a_history(3))
    return dead_letter(incoming, decision, queue="q", handler="h", now=NOON, budget=budget)


def test_a_copy_is_the_next_attempt_of_the_same_event() -> None:
    message = a_message()

    copy = a_copy(message, attempt=2)

    assert read_history(copy).attempt == 3
    assert read_metadata(copy, NOON) == read_metadata(message, NOON)
    assert (copy.body, copy.type, copy.content_type) == (message.body, message.type, message.content_type)
    assert copy.message_id != message.message_id


def test_a_waiting_copy_is_the_same_attempt_and_adds_up_its_waits_whatever_the_clock() -> None:
    message, history, waits = a_message(), a_history(2), Postpone(1.5, None)

    for now in (NOON, NOON + timedelta(hours=7), NOON - timedelta(hours=5)):
        copy = postponed_copy(an_incoming(message, history), waits, queue="q", now=now, budget=BUDGET)
        history = read_history(copy)

    assert (history.attempt, history.held_for) == (2, 4.5)


def test_a_failure_ends_the_sum_of_waits() -> None:
    history = replace(a_history(1), held_for=3.0)
    message = a_message()

    fails = Postpone(1.0, ValueError())
    copy = postponed_copy(an_incoming(message, history), fails, queue="q", now=NOON, budget=BUDGET)

    assert read_history(copy).held_for == 0.0


def test_a_copy_of_a_copy_remembers_where_the_message_was_first_published() -> None:
    copy = a_copy(a_copy(a_message()), attempt=2)

    assert (copy.headers[h.EXCHANGE], copy.headers[h.ROUTING_KEY]) == ("events", "order.created")


def test_the_id_of_a_message_that_had_none_survives_in_the_copy() -> None:
    message = a_message(message_id=None)

    assert a_copy(message).headers[h.EVENT_ID] == read_metadata(message, NOON).event_id


@pytest.mark.parametrize(
    "name", ["x-death", "x-first-death-queue", "x-delivery-count", "x-acquired-count", "CC", "BCC", "holdfast-reason"]
)
def test_a_copy_carries_nothing_that_belongs_to_the_broker_or_would_route_it(name: str) -> None:
    message = a_message(headers={name: "forged", "mine": 1})

    assert a_copy(message).headers.get(name) != "forged"
    assert a_letter(message).headers.get(name) != "forged"
    assert a_copy(message).headers["mine"] == 1


values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False),
        st.text(max_size=3000),
        st.binary(max_size=50),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.text(max_size=150), values, max_size=8), st.integers(30_000, BUDGET))
def test_whatever_headers_came_along_a_copy_fits_its_budget_and_can_be_encoded(
    headers: dict[str, Any], budget: int
) -> None:
    message = a_message(headers=headers)

    for copy in (a_copy(message, budget=budget), a_letter(message, budget=budget)):
        assert headers_size(copy.headers) <= budget


def test_the_largest_headers_are_left_out_first_and_named() -> None:
    letter = a_letter(a_message(headers={"a": "x" * 60_000, "b": "x" * 90_000, "c": 1}))

    assert "a" in letter.headers and "c" in letter.headers and "b" not in letter.headers
    assert "'b'" in letter.headers[h.NOTE]


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise OSError


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:  # noqa: BLE001
        return caught


def test_an_error_is_described_within_bounds_whatever_it_is() -> None:
    for error in (
        ValueError("ü" * 5_000_000),
        Unspeakable(),
        ExceptionGroup("g", [ValueError("x" * 10_000)] * 3),
        SystemExit(),
    ):
        failure = describe_failure(raised(error))
        assert len(failure.message.encode()) <= 4_000
        assert len(failure.traceback.encode()) <= 16_000
        assert len(summary(error)) <= 800


def test_a_deep_recursion_is_described_by_its_innermost_frames() -> None:
    def dive(depth: int) -> None:
        if depth == 0:
            raise ValueError("the bottom")
        dive(depth - 1)

    with pytest.raises(ValueError, match="bottom") as caught:
        dive(500)

    failure = describe_failure(caught.value)
    assert "the bottom" in failure.traceback and len(failure.traceback) <= 16_000


def test_like_failures_share_a_fingerprint_and_others_do_not() -> None:
    def fails(order: int) -> BaseException:
        return raised(ValueError(f"order {order}"))

    assert describe_failure(fails(1)).fingerprint == describe_failure(fails(2)).fingerprint
    assert describe_failure(fails(1)).fingerprint != describe_failure(raised(KeyError("order"))).fingerprint


class Basket(Event, type="copies.basket"):
    owner: str
    prices: list[int]


def test_bodies_that_cannot_be_read_are_grouped_by_where_and_how() -> None:
    def unread(body: bytes) -> str:
        with pytest.raises(Unreadable) as caught:
            decode(decoder_for(Basket), a_message(body))
        return describe_failure(caught.value).fingerprint

    no_owner, also = unread(b'{"prices": []}'), unread(b'{"prices": [1, 2], "more": 1}')
    odd_price, later = unread(b'{"owner": "a", "prices": ["x"]}'), unread(b'{"owner": "b", "prices": [1, "y"]}')
    no_list = unread(b'{"owner": "a", "prices": 1}')

    assert no_owner == also and odd_price == later
    assert len({no_owner, odd_price, no_list, unread(b"{")}) == 4


def test_secrets_in_an_error_never_reach_the_copy() -> None:
    error = OSError("cannot reach amqp://user:canary-1@host/ with password=canary-2")

    told = str({**a_letter(a_message(), error=error).headers, **a_copy(a_message(), error=error).headers})

    assert "canary" not in told


def test_metadata_of_a_dead_letter_names_reason_handler_and_process() -> None:
    told = a_letter(a_message()).headers

    assert (told[h.REASON], told[h.HANDLER], told[h.QUEUE], told[h.ATTEMPT]) == ("exhausted", "h", "q", 3)
    assert "holdfast/" in told[h.WORKER]
    assert some_metadata().event_id != told[h.EVENT_ID]


class Peculiar(Exception):
    """As a dataclass that holds an array: it cannot be compared, nor tested for truth."""

    def __eq__(self, other: object) -> bool:
        raise ValueError("ambiguous")

    def __hash__(self) -> int:
        return 1

    def __bool__(self) -> bool:
        raise ValueError("ambiguous")


def test_an_exception_is_neither_compared_nor_tested_for_truth() -> None:
    error = Peculiar("outer")
    error.__cause__ = Peculiar("inner")
    error.__cause__.__context__ = error

    assert "inner" in describe_failure(error).traceback


def test_a_text_of_megabytes_is_cut_before_it_is_searched_for_secrets() -> None:
    """Searched first, it would be shorter by what was taken out of its middle."""
    text = "token: hidden, " * 500_000

    told = describe_failure(ValueError(text)).message

    head, left_out, tail = re.split(r"\n\.\.\. (\d+) characters left out \.\.\.\n", told)
    assert len(head) + int(left_out) + len(tail) == len(text)
    assert "hidden" not in told


@pytest.mark.parametrize("size", [60_000, 62_000])
def test_a_forged_origin_does_not_make_a_copy_too_large(size: int) -> None:
    message = a_message(headers={h.EXCHANGE: "x" * size, h.ROUTING_KEY: "y" * size})

    letter = a_letter(message, error=ValueError("z" * 5_000))

    assert headers_size(letter.headers) <= BUDGET
    assert (letter.headers[h.EXCHANGE], letter.headers[h.ROUTING_KEY]) == ("events", "order.created")
    assert headers_size(a_copy(message).headers) <= BUDGET
