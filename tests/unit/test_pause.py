"""Pauses between tries."""

from hypothesis import given
from hypothesis import strategies as st

from holdfast.broker import Pause


def test_a_pause_doubles_with_each_failure_up_to_the_longest() -> None:
    pause = Pause(0.5, 3.0)

    assert [pause.seconds(failures, luck=1.0) for failures in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_jitter_is_the_share_that_luck_may_take_away() -> None:
    assert Pause(2.0, 10.0, jitter=0.5).seconds(0, luck=0.0) == 1.0
    assert Pause(2.0, 10.0, jitter=1.0).seconds(0, luck=0.0) == 0.0
    assert Pause(2.0, 10.0, jitter=0.0).seconds(0, luck=0.0) == 2.0


@given(failures=st.integers(0, 10**9), luck=st.floats(0, 1), jitter=st.floats(0, 1))
def test_no_pause_is_negative_or_longer_than_the_longest(failures: int, luck: float, jitter: float) -> None:
    seconds = Pause(0.1, 30.0, jitter).seconds(failures, luck)

    assert 0 <= seconds <= 30.0
