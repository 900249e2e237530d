"""Policies and decisions are pure: the same outcome, attempt, age and luck give the same decision."""

from datetime import timedelta

import pytest
from builders import NOON, a_message, an_incoming
from hypothesis import given
from hypothesis import strategies as st

from holdfast import ConfigurationError, Reject, Retry, RetryLater, exponential, fixed, linear
from holdfast.broker import ladder
from holdfast.consumer.decide import Policy, decide, refuse_size
from holdfast.consumer.errors import Crashed, Expired, HeldTooLong
from holdfast.consumer.outcome import (
    RUN,
    Abandoned,
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
    Ready,
    Refused,
    Succeeded,
    Unpublished,
)
from holdfast.events import History, headers


class CardDeclined(Exception): ...


def decided(
    outcome: Outcome,
    *,
    attempt: int = 1,
    age: float = 0.0,
    held_for: float = 0.0,
    runs: int = 1,
    policy: Retry | None = None,
) -> Decision:
    incoming = an_incoming(a_message(headers={headers.EVENT_TIME: NOON.isoformat()}), History(attempt, held_for))
    now = NOON + timedelta(seconds=age)
    allowed = Policy(policy or Retry(), max_body=100, max_delay=86_400, max_held=90)
    return decide(outcome, incoming, allowed, runs=runs, now=now, luck=1.0)


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
    held = HeldElsewhere(free_in=15)

    assert decided(held, held_for=0) == Postpone(1.0, None)
    assert decided(held, held_for=8) == Postpone(4.0, None)
    assert decided(held, held_for=80) == Postpone(15.1, None)


def test_an_event_held_elsewhere_longer_than_a_handler_may_take_counts_as_a_failure() -> None:
    held = HeldElsewhere(free_in=15)

    again, last = decided(held, held_for=91, attempt=1), decided(held, held_for=91, attempt=5)

    assert isinstance(again, Postpone) and isinstance(again.error, HeldTooLong)
    assert isinstance(last, DeadLetter) and last.reason == "exhausted"


def test_an_event_that_would_be_too_old_at_its_next_attempt_expires_now() -> None:
    error, policy = ValueError(), Retry(backoff=fixed(10, jitter=False), max_age=60)

    assert decided(Failed(error), age=49, policy=policy) == Postpone(10, error)
    assert decided(Failed(error), age=51, policy=policy) == DeadLetter("expired", error)


def test_an_event_that_is_ready_runs_unless_it_is_too_old_or_has_crashed_too_often() -> None:
    policy = Retry(max_age=60, max_crashes=3)

    old, crashed = decided(Ready(None), age=61, policy=policy), decided(Ready(None, 3), policy=policy)

    assert decided(Ready(None, 2), age=59, policy=policy) == RUN
    assert isinstance(old, DeadLetter) and old.reason == "expired" and isinstance(old.error, Expired)
    assert isinstance(crashed, DeadLetter) and crashed.reason == "crashed" and isinstance(crashed.error, Crashed)


def test_a_failed_run_is_followed_by_runs_in_place_before_it_counts_as_an_attempt() -> None:
    error, policy = ValueError(), Retry(immediate=2, backoff=fixed(3, jitter=False))

    assert [decided(Failed(error), runs=runs, policy=policy) for runs in (1, 2, 3)] == [RUN, RUN, Postpone(3, error)]


@pytest.mark.parametrize(
    "outcome",
    [
        Failed(RetryLater(after=7), 7),
        Failed(CardDeclined()),
        Failed(BaseException()),
        Refused(Reject(), "refused"),
        Abandoned(ValueError()),
        Unpublished(ValueError()),
    ],
    ids=["asked-for-later", "given-up", "no-exception", "rejected", "abandoned", "unpublished"],
)
def test_no_other_end_is_followed_by_a_run_in_place(outcome: Outcome) -> None:
    assert decided(outcome, policy=Retry(immediate=2, give_up_on=(CardDeclined,))) != RUN


def test_a_body_larger_than_allowed_is_refused_unread() -> None:
    policy = Policy(Retry(), max_body=10, max_delay=1, max_held=1)

    refused = refuse_size(11, policy)

    assert refused.reason == "too-large"
    assert "11 bytes" in str(refused.error) and "MAX_BODY allows 10" in str(refused.error)


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
