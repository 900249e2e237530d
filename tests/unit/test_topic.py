import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.broker import matches


@pytest.mark.parametrize(
    ("pattern", "key"),
    [
        ("order.created", "order.created"),
        ("order.*", "order.created"),
        ("*.created", "order.created"),
        ("#", "order.created"),
        ("#", ""),
        ("order.#", "order"),
        ("order.#", "order.item.added"),
        ("#.added", "added"),
        ("#.added", "order.item.added"),
        ("order.#.added", "order.added"),
        ("*.#.*", "order.added"),
        ("#.#", "order"),
        ("", ""),
        ("*.order", ".order"),
    ],
)
def test_a_pattern_takes_the_keys_it_describes(pattern: str, key: str) -> None:
    assert matches(pattern, key)


@pytest.mark.parametrize(
    ("pattern", "key"),
    [
        ("order.created", "order.paid"),
        ("order.created", "order.created.late"),
        ("order.*", "order"),
        ("order.*", "order.item.added"),
        ("*", ""),
        ("*.#.*", "order"),
        ("order.#.added", "order.item"),
        ("order.cre*", "order.created"),
        ("Order", "order"),
        ("order", ""),
        ("", "order"),
    ],
)
def test_a_pattern_takes_no_other_keys(pattern: str, key: str) -> None:
    assert not matches(pattern, key)


WORDS = st.sampled_from(["a", "b", "c"])
PATTERNS = st.lists(st.one_of(WORDS, st.sampled_from(["*", "#"])), min_size=1, max_size=6)


@given(PATTERNS, st.lists(WORDS, min_size=1, max_size=6))
def test_matching_agrees_with_a_regular_expression(pattern: list[str], key: list[str]) -> None:
    as_regex = {"*": "[^.]+[.]", "#": "(?:[^.]+[.])*"}
    regex = "".join(as_regex.get(word, word + "[.]") for word in pattern)

    expected = re.fullmatch(regex, "".join(word + "." for word in key)) is not None

    assert matches(".".join(pattern), ".".join(key)) == expected


@given(st.lists(WORDS, min_size=1, max_size=8))
def test_a_key_without_wildcards_matches_itself(key: list[str]) -> None:
    assert matches(".".join(key), ".".join(key))
