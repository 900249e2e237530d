import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from holdfast.broker import Topology, ladder, matches

LONGEST = ladder.UNIT * (2**ladder.BITS - 1)
WHOLE = ladder.ladder(LONGEST)
NAMES = st.from_regex(r"[a-z0-9_-]{1,12}(\.[a-z0-9_-]{1,12}){0,4}", fullmatch=True)
TARGETS = st.one_of(NAMES.map(ladder.to_queue), NAMES.map(ladder.to_listeners))


def walk(topology: Topology, exchange: str, key: str) -> tuple[list[str], str]:
    """Where a message rests on its way, in order, and the exchange at which it leaves the topology."""
    rests: list[str] = []
    next_exchange = {queue.name: queue.arguments.get("x-dead-letter-exchange") for queue in topology.queues}
    while exchange != ladder.OUT:
        taken = [b for b in topology.bindings if b.source == exchange and matches(b.key, key)]
        assert len(taken) == 1, f"{key} leaves {exchange} by {taken}"
        if taken[0].to_exchange:
            exchange = taken[0].destination
        else:
            rests.append(taken[0].destination)
            lower = next_exchange[taken[0].destination]
            assert isinstance(lower, str)
            exchange = lower
    return rests, exchange


def rest_of(queue: str) -> int:
    """Milliseconds that a level rests."""
    return next(int(q.arguments["x-message-ttl"]) for q in WHOLE.queues if q.name == queue)


@given(st.floats(0, 1.2 * LONGEST), TARGETS)
def test_a_delay_rests_at_the_levels_that_add_up_to_it_and_ends_at_out(delay: float, target: str) -> None:
    exchange, key = ladder.address(delay, target)

    rests, end = walk(WHOLE, exchange, key)

    whole = ladder.units(delay)
    assert end == ladder.OUT
    assert rests == [ladder.level_name(n) for n in reversed(range(ladder.BITS)) if whole >> n & 1]
    assert sum(map(rest_of, rests)) == whole * 100


@given(st.floats(0.1, 86_400), TARGETS)
def test_the_levels_of_a_longest_delay_carry_every_delay_up_to_it(longest: float, target: str) -> None:
    small = ladder.ladder(longest)

    for delay in (0.0, longest / 3, longest):
        exchange, key = ladder.address(delay, target)
        assert exchange in {declared.name for declared in small.exchanges}
        assert walk(small, exchange, key) == walk(WHOLE, exchange, key)


@given(st.floats(0.1, LONGEST))
def test_a_shorter_ladder_is_a_part_of_a_longer_one(longest: float) -> None:
    assert ladder.ladder(longest) + WHOLE == Topology(
        ladder.ladder(longest).exchanges + WHOLE.exchanges[len(ladder.ladder(longest).exchanges) :],
        ladder.ladder(longest).queues + WHOLE.queues[len(ladder.ladder(longest).queues) :],
        ladder.ladder(longest).bindings + WHOLE.bindings[len(ladder.ladder(longest).bindings) :],
    )


@given(st.floats(0, LONGEST), TARGETS, TARGETS)
def test_at_the_end_a_target_is_taken_by_its_own_binding_alone(delay: float, target: str, other: str) -> None:
    _, key = ladder.address(delay, target)

    assert matches(ladder.arrival(target), key)
    assert matches(ladder.arrival(other), key) == (other == target)


def test_a_queue_and_an_event_type_of_one_name_are_different_targets() -> None:
    assert ladder.to_queue("order.created") != ladder.to_listeners("order.created")


@given(st.floats(0, LONGEST))
def test_a_rounded_delay_has_at_most_six_bits_and_is_at_most_1_6_percent_off(delay: float) -> None:
    rounded = ladder.rounded(delay)

    assert ladder.units(rounded).bit_count() <= 6
    assert rounded == pytest.approx(ladder.units(delay) * ladder.UNIT, rel=0.016)


@given(st.floats(0.1, LONGEST))
@example(12.7)
@example(102.0)
@example(LONGEST)
def test_a_rounded_delay_still_fits_the_ladder_of_the_longest_delay(longest: float) -> None:
    exchange, _ = ladder.address(ladder.rounded(longest), "target")

    assert exchange in {declared.name for declared in ladder.ladder(longest).exchanges}


@given(st.integers(1, 2**ladder.SIGNIFICANT_BITS - 1))
def test_a_short_delay_is_not_rounded(units: int) -> None:
    assert ladder.units(ladder.rounded(units * ladder.UNIT)) == units


@given(st.floats(0, LONGEST))
def test_rounding_again_changes_nothing(delay: float) -> None:
    once = ladder.rounded(delay)

    assert ladder.rounded(once) == pytest.approx(once)


@given(st.floats(-10, 10 * LONGEST))
def test_whatever_waits_waits_at_least_one_unit_and_fits_the_key(delay: float) -> None:
    assert 1 <= ladder.units(delay) < 2**ladder.BITS


@pytest.mark.parametrize(("longest", "levels"), [(0.1, 1), (0.2, 2), (0.3, 2), (60, 10), (3_600, 16), (86_400, 20)])
def test_as_many_levels_as_the_longest_delay_needs(longest: float, levels: int) -> None:
    assert ladder.levels_for(longest) == levels
    assert sum(queue.name != ladder.UNROUTED for queue in ladder.ladder(longest).queues) == levels


@given(NAMES, st.floats(0, LONGEST))
def test_a_key_leaves_two_hundred_bytes_for_the_target(name: str, delay: float) -> None:
    _, key = ladder.address(delay, "t" * 199)

    assert len(key.encode()) == 255


def test_every_level_keeps_what_it_cannot_hand_on() -> None:
    for queue in WHOLE.queues:
        if queue.name != ladder.UNROUTED:
            assert queue.arguments["x-queue-type"] == "quorum"
            assert queue.arguments["x-dead-letter-strategy"] == "at-least-once"
            assert queue.arguments["x-overflow"] == "reject-publish"
            assert "x-dead-letter-routing-key" not in queue.arguments


def test_what_no_binding_takes_at_the_end_goes_to_unrouted() -> None:
    out = next(exchange for exchange in WHOLE.exchanges if exchange.name == ladder.OUT)

    assert out.arguments == {"alternate-exchange": ladder.UNROUTED}
    assert [b.destination for b in WHOLE.bindings if b.source == ladder.UNROUTED] == [ladder.UNROUTED]
