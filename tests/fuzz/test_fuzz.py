"""Each promise against real inputs, hostile ones, and what becomes of both when bytes of them change."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seeds import SEEDS
from targets import TARGETS, check

Change = tuple[int, int, bytes]

WORDS = st.sampled_from(
    [b"\x00", b"\xff", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"F", b"A", b'"', b"[", b"1e999", b":"]
)
CHANGES = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 4), WORDS | st.binary(max_size=6)), max_size=6)


def changed(seed: bytes, changes: list[Change]) -> bytes:
    """The seed with bytes at some places replaced by others."""
    for at, count, put in changes:
        place = at % (len(seed) + 1)
        seed = seed[:place] + put + seed[place + count :]
    return seed


@pytest.mark.parametrize("name", TARGETS)
def test_the_promise_holds_for_every_seed(name: str) -> None:
    for seed in SEEDS[name]:
        check(name, seed)


@pytest.mark.parametrize("name", TARGETS)
def test_the_promise_holds_for_changed_seeds_and_for_any_bytes(name: str) -> None:
    small = [seed for seed in SEEDS[name] if len(seed) < 5_000]

    @settings(max_examples=300)
    @given(st.binary(max_size=300) | st.builds(changed, st.sampled_from(small), CHANGES))
    def holds(data: bytes) -> None:
        check(name, data)

    holds()
