"""Policies and decisions are pure: the same outcome, attempt, age and luck give the same decision."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast import ConfigurationError, Reject, Retry, RetryLater, exponential, fixed, linear
from holdfast.broker import ladder
from holdfast.consumer.decide import HeldTooLong, decide
from holdfast.consumer.outcome import (
    Ack,
    AlreadyDone,
    DeadLetter,
    Decision,
    Failed,
    GiveBack,
    HeldElsewhere,
    Interrupted,
    Outcome,
    Postpone,
    Refused,
    Succeeded,
)


class CardDeclined(Exception): ...


def decided(
    outcome: Outcome, *, attempt: int = 1, age: float = 0.0, policy: Retry | None = None, luck: float = 1.0
) -> Decision:
    return decide(outcome, attempt=attempt, age=age, policy=policy or Retry(), luck=luck, longest=86_400)


def test_success_and_a_known_message_are_acked_and_an_interrupted_one_is_given_back() -> None:
    assert decided(Succeeded()) == Ack("handled")
    assert decided(AlreadyDone()) == Ack("duplicate")
    assert decided(Interrupted()) == GiveBack()


def test_a_failure_is_postponed_by_the_backoff_and_the_last_one_is_dead_lettered() -> None:
    error, policy = ValueError("x"), Retry(attempts=3, backoff=exponential(2, jitter=False))

    assert decided(Failed(error), attempt=1, policy=policy) == Postpone(2, error)
    assert decided(Failed(error), attempt=2, policy=policy) == Postpone(4, error)
    assert decided(Failed(error), attempt=3, policy=policy) == DeadLetter("exhausted", error)


def test_attempts_beyond_the_policy_end_at_once() -> None:
    assert isinstance(decided(Failed(ValueError()), attempt=99), DeadLetter)


def test_retry_later_replaces_the_backoff_and_counts_as_an_attempt() -> None:
    signal = RetryLater(after=7)

    assert decided(Failed(signal, signal.after)) == Postpone(7, signal)
    assert decided(Failed(signal, signal.after), attempt=5) == DeadLetter("exhausted", signal)


def test_what_is_refused_is_dead_lettered_with_its_reason() -> None:
    error = Reject("no such customer")

    assert decided(Refused(error, "refused")) == DeadLetter("refused", error)


@pytest.mark.parametrize(
    ("policy", "error", "again"),
    [
        (Retry(), RuntimeError(), True),
        (Retry(give_up_on=(CardDeclined,)), CardDeclined(), False),
        (Retry(retry_on=(OSError,)), ValueError(), False),
        (Retry(retry_on=(OSError,)), TimeoutError(), True),
        (Retry(give_up_on=(CardDeclined,)), ExceptionGroup("g", [CardDeclined(), CardDeclined()]), False),
        (Retry(give_up_on=(CardDeclined,)), ExceptionGroup("g", [CardDeclined(), OSError()]), True),
        (Retry(), SystemExit(), True),
        (Retry(retry_on=(OSError,)), KeyboardInterrupt(), True),
    ],
)
def test_the_policy_says_which_errors_are_tried_again(policy: Retry, error: BaseException, again: bool) -> None:
    assert isinstance(decided(Failed(error), policy=policy), Postpone) is again


def test_an_event_another_worker_holds_waits_longer_each_time_and_spends_no_attempt() -> None:
    assert decided(HeldElsewhere(0, 90, free_in=15)) == Postpone(1.0, None)
    assert decided(HeldElsewhere(8, 90, free_in=15)) == Postpone(4.0, None)
    assert decided(HeldElsewhere(80, 90, free_in=15)) == Postpone(15.1, None)


def test_an_event_held_elsewhere_longer_than_a_handler_may_take_counts_as_a_failure() -> None:
    overdue = HeldElsewhere(91, 90, free_in=15)

    again, last = decided(overdue, attempt=1), decided(overdue, attempt=5)

    assert isinstance(again, Postpone) and isinstance(again.error, HeldTooLong)
    assert isinstance(last, DeadLetter) and last.reason == "exhausted"


def test_an_event_that_would_be_too_old_at_its_next_attempt_expires_now() -> None:
    error, policy = ValueError(), Retry(backoff=fixed(10, jitter=False), max_age=60)

    assert decided(Failed(error), age=49, policy=policy) == Postpone(10, error)
    assert decided(Failed(error), age=51, policy=policy) == DeadLetter("expired", error)


def test_a_delay_is_never_longer_than_the_ladder() -> None:
    decision = decided(Failed(ValueError()), policy=Retry(backoff=lambda attempt: 10.0**9))

    assert isinstance(decision, Postpone) and decision.delay == 86_400


def test_backoffs_grow_as_their_names_say_and_stop_at_their_maximum() -> None:
    assert [fixed(3, jitter=False)(n) for n in (1, 2, 9)] == [3, 3, 3]
    assert [linear(3, maximum=7, jitter=False)(n) for n in (1, 2, 3)] == [3, 6, 7]
    assert [exponential(1, factor=3, maximum=20, jitter=False)(n) for n in (1, 2, 3, 4)] == [1, 3, 9, 20]
    assert exponential(1, maximum=300)(100_000) == 300


@given(attempt=st.integers(1, 10_000), luck=st.floats(0, 1), seconds=st.floats(0, 1000), maximum=st.floats(0.1, 10_000))
def test_full_jitter_stays_between_nothing_and_the_ceiling(
    attempt: int, luck: float, seconds: float, maximum: float
) -> None:
    for backoff in (fixed(seconds), linear(seconds, maximum=maximum), exponential(seconds, maximum=maximum)):
        assert 0 <= backoff(attempt, luck) <= backoff(attempt, 1.0)


@given(attempt=st.integers(1, 20), luck=st.floats(0, 1))
def test_jitter_falls_on_delays_of_at_most_three_hops(attempt: int, luck: float) -> None:
    jittered, plain = Retry(backoff=exponential(1, maximum=300)), Retry(backoff=exponential(1.1, jitter=False))

    assert ladder.units(jittered.delay(attempt, luck)).bit_count() <= 3
    assert 0.75 * luck * min(2 ** (attempt - 1), 300) - 0.1 <= jittered.delay(attempt, luck) <= luck * 300
    assert plain.delay(attempt, luck) == min(1.1 * 2 ** (attempt - 1), 3600)


@pytest.mark.parametrize("answer", [-1.0, float("nan"), float("inf"), "soon", None])
def test_a_backoff_function_that_answers_nonsense_is_replaced_by_the_default(answer: object) -> None:
    policy = Retry(backoff=lambda attempt: answer)  # type: ignore[arg-type, return-value]

    assert policy.delay(1, luck=1.0) == 1.0


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ({"attempts": 0}, "attempts=0"),
        ({"attempts": True}, "attempts=True"),
        ({"immediate": -1}, "immediate=-1"),
        ({"max_age": 0}, "max_age=0"),
        ({"retry_on": ValueError}, "retry_on"),
        ({"give_up_on": ("x",)}, "give_up_on"),
        ({"backoff": 3}, "backoff=3"),
    ],
)
def test_a_wrong_policy_is_named_where_it_is_written(arguments: dict[str, object], fault: str) -> None:
    with pytest.raises(ConfigurationError, match=fault):
        Retry(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("after", [-1, float("inf"), float("nan")])
def test_retry_later_takes_seconds(after: float) -> None:
    with pytest.raises(ConfigurationError, match="RetryLater"):
        RetryLater(after=after)


def test_groups_nested_deeper_than_python_calls_are_looked_into() -> None:
    error: Exception = ValueError("x")
    for _ in range(3_000):
        error = ExceptionGroup("again", [error])

    assert isinstance(decided(Failed(error)), Postpone)
    assert decided(Failed(error), policy=Retry(give_up_on=(ValueError,))) == DeadLetter("refused", error)
