"""How long something lasts is said in one way, of letters and of sagas, on the terminal and on the page."""

import pytest

from holdfast.cli.sagas import due_text
from holdfast.dashboard.page import templates


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, ""), (3_725.4, ", due in 62 min"), (0.2, ", due in 0 s"), (-3_725.4, ", over its limit for 62 min")],
)
def test_the_limit_of_a_saga_is_said_as_an_age_is(seconds: float | None, text: str) -> None:
    assert due_text(seconds) == text


def test_the_page_says_how_long_a_saga_rests_as_it_says_an_age() -> None:
    shown = templates().from_string("{{ 3725.4 | span }}, {{ -5 | span }}").render()

    assert shown == "62 min, 0 s"
