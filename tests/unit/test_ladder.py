"""The ladder by a model of its routing: every delay ends at its target after exactly the sum of its levels."""

from collections.abc import Mapping

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from holdfast.broker import Binding, Topology, ladder, matches

LONGEST = ladder.UNIT * (2**ladder.BITS - 1)
WHOLE = ladder.ladder(LONGEST)
RESTS = {queue.name: int(queue.arguments.get("x-message-ttl", 0)) for queue in WHOLE.queues}
WORDS = st.from_regex(r"[a-z0-9_-]{1,12}", fullmatch=True) | st.sampled_from(["event", "queue", "0", "1", "rest"])
NAMES = st.lists(WORDS, min_size=1, max_size=5).map(".".join)
DELAYS = st.floats(0, 1.2 * LONGEST) | st.integers(0, 40).map(lambda units: units * ladder.UNIT)


def next_exchange(topology: Topology, queue: str) -> str:
    [lower] = [declared.arguments["x-dead-letter-exchange"] for declared in topology.queues if declared.name == queue]
    assert isinstance(lower, str)
    return lower


def takers(topology: Topology, exchange: str, headers: Mapping[str, object]) -> list[Binding]:
    """The bindings of a level by which a message goes on: of a headers exchange those whose headers it has."""
    bound = [b for b in topology.bindings if b.source == exchange]
    return [b for b in bound if all(headers.get(name) == value for name, value in b.headers)]


def walk(topology: Topology, exchange: str, headers: Mapping[str, object]) -> list[str]:
    """The queues in which a message rests until it comes to `OUT`, in order. Exactly one binding takes it each time."""
    rests: list[str] = []
    while exchange != ladder.OUT:
        taken = takers(topology, exchange, headers)
        assert len(taken) == 1, f"{headers} leave {exchange} by {taken}"
        exchange = taken[0].destination
        if not taken[0].to_exchange:
            rests.append(exchange)
            exchange = next_exchange(topology, exchange)
    return rests


def receivers(key: str, *arrivals: Topology) -> list[str]:
    """The queues that receive a message at `OUT`."""
    return sorted({b.destination for topology in arrivals for b in topology.bindings if matches(b.key, key)})


def of_an_earlier_release(queue: str, *event_types: str) -> Topology:
    targets = [f"queue.{queue}", *(f"event.{event_type}" for event_type in event_types)]
    return Topology(bindings=tuple(Binding(ladder.OUT, queue, "*." * 28 + target) for target in targets))


def key_of_an_earlier_release(delay: float, target: str) -> str:
    return ".".join(f"{ladder.units(delay):028b}") + "." + target


@given(DELAYS, NAMES.map(ladder.to_queue) | NAMES.map(ladder.to_listeners))
@example(LONGEST, ladder.to_listeners("order.created"))
@example((2**27 + 1) * ladder.UNIT, ladder.to_queue("q"))
def test_a_message_rests_at_the_levels_that_add_up_to_its_delay_and_ends_at_out(delay: float, target: str) -> None:
    exchange, _, headers = ladder.address(delay, target)

    rests = walk(WHOLE, exchange, headers)

    whole = ladder.units(delay)
    assert rests == [ladder.level_name(n) for n in reversed(range(ladder.BITS)) if whole >> n & 1]
    assert sum(map(RESTS.__getitem__, rests)) == whole * 100
    assert ladder.delay_of(headers) == pytest.approx(whole * ladder.UNIT)


@given(DELAYS, NAMES, NAMES)
def test_at_the_end_a_copy_is_taken_by_its_own_queue_alone(delay: float, name: str, other: str) -> None:
    _, key, _ = ladder.address(delay, ladder.to_queue(name))

    assert receivers(key, ladder.arrivals(name, [other]), ladder.arrivals(other, [name])) == [name]


@given(DELAYS, NAMES, NAMES)
def test_at_the_end_a_delayed_event_is_taken_by_the_listeners_of_its_type_alone(
    delay: float, event_type: str, other: str
) -> None:
    _, key, _ = ladder.address(delay, ladder.to_listeners(event_type))

    taken = receivers(
        key, ladder.arrivals("listener", [event_type]), ladder.arrivals("all", ["#"]), ladder.arrivals(event_type)
    )

    assert taken == ["all", "listener"]
    assert (receivers(key, ladder.arrivals("listener", [other])) == ["listener"]) == (other == event_type)


def test_a_pattern_takes_the_delayed_events_that_it_matches() -> None:
    _, key, _ = ladder.address(1.0, ladder.to_listeners("order.created"))

    assert receivers(key, ladder.arrivals("a", ["order.*"]), ladder.arrivals("b", ["bill.*"])) == ["a"]


@given(DELAYS, NAMES)
def test_a_listener_of_an_earlier_release_receives_what_this_one_delays(delay: float, event_type: str) -> None:
    _, key, _ = ladder.address(delay, ladder.to_listeners(event_type))

    assert receivers(key, of_an_earlier_release("listener", event_type)) == ["listener"]


@given(DELAYS, NAMES)
def test_what_an_earlier_release_delays_arrives_where_it_did(delay: float, name: str) -> None:
    ours, other = ladder.arrivals("ours", [name]), ladder.arrivals(name, ["other.type"])

    assert receivers(key_of_an_earlier_release(delay, f"event.{name}"), ours, other) == ["ours"]
    assert receivers(key_of_an_earlier_release(delay, f"queue.{name}"), ours, other) == [name]


@given(st.floats(0.1, 86_400), NAMES.map(ladder.to_queue) | NAMES.map(ladder.to_listeners))
def test_the_levels_of_a_longest_delay_carry_every_delay_up_to_it(longest: float, target: str) -> None:
    small = ladder.ladder(longest)

    for delay in (0.0, longest / 3, longest):
        exchange, _, headers = ladder.address(delay, target)
        assert exchange in {declared.name for declared in small.exchanges}
        assert walk(small, exchange, headers) == walk(WHOLE, exchange, headers)


@given(st.floats(0.1, LONGEST))
def test_a_shorter_ladder_is_a_part_of_a_longer_one(longest: float) -> None:
    assert ladder.ladder(longest) + WHOLE == Topology(
        ladder.ladder(longest).exchanges + WHOLE.exchanges[len(ladder.ladder(longest).exchanges) :],
        ladder.ladder(longest).queues + WHOLE.queues[len(ladder.ladder(longest).queues) :],
        ladder.ladder(longest).bindings + WHOLE.bindings[len(ladder.ladder(longest).bindings) :],
    )


def test_no_level_of_an_earlier_release_is_declared_again() -> None:
    declared = {exchange.name for exchange in WHOLE.exchanges} | {queue.name for queue in WHOLE.queues}

    assert not {f"holdfast.delay.{level:02d}" for level in range(ladder.BITS)} & declared


def test_a_level_without_its_queue_keeps_a_message_where_it_is() -> None:
    exchange, _, headers = ladder.address(0.8, ladder.to_queue("q"))
    broken = Topology(bindings=tuple(b for b in WHOLE.bindings if b.destination != exchange or b.to_exchange))

    assert takers(broken, exchange, headers) == []


def test_a_queue_and_an_event_type_of_one_name_are_different_targets() -> None:
    assert ladder.to_queue("order.created") != ladder.to_listeners("order.created")


@given(st.floats(0, LONGEST))
def test_a_rounded_delay_has_at_most_six_bits_and_is_at_most_1_6_percent_off(delay: float) -> None:
    rounded = ladder.rounded(delay)

    assert ladder.units(rounded).bit_count() <= 6
    assert rounded == pytest.approx(ladder.units(delay) * ladder.UNIT, rel=0.016)


@given(st.floats(0, LONGEST))
def test_a_coarse_delay_rests_at_most_at_three_levels_and_is_no_longer_than_asked(delay: float) -> None:
    coarse = ladder.coarse(delay)

    assert ladder.units(coarse).bit_count() <= 3
    assert 0.75 * delay - ladder.UNIT <= coarse <= delay


@given(st.floats(0.1, LONGEST))
@example(12.7)
@example(102.0)
@example(LONGEST)
def test_a_rounded_delay_still_fits_the_ladder_of_the_longest_delay(longest: float) -> None:
    exchange, _, _ = ladder.address(ladder.rounded(longest), "target")

    assert exchange in {declared.name for declared in ladder.ladder(longest).exchanges}


@given(st.integers(1, 2**ladder.SIGNIFICANT_BITS - 1))
def test_a_short_delay_is_not_rounded(units: int) -> None:
    assert ladder.units(ladder.rounded(units * ladder.UNIT)) == units


@given(st.floats(0, LONGEST))
def test_rounding_again_changes_nothing(delay: float) -> None:
    once = ladder.rounded(delay)

    assert ladder.rounded(once) == pytest.approx(once)
    assert ladder.units(ladder.rounded(ladder.coarse(delay))) == ladder.units(ladder.coarse(delay))


@given(st.floats(-10, 10 * LONGEST))
def test_whatever_waits_waits_at_least_one_unit_and_fits_the_key(delay: float) -> None:
    assert 1 <= ladder.units(delay) < 2**ladder.BITS


@pytest.mark.parametrize(("longest", "levels"), [(0.1, 1), (0.2, 2), (0.3, 2), (60, 10), (3_600, 16), (86_400, 20)])
def test_as_many_levels_as_the_longest_delay_needs(longest: float, levels: int) -> None:
    assert ladder.levels_for(longest) == levels
    assert sum(queue.name != ladder.UNROUTED for queue in ladder.ladder(longest).queues) == levels


@given(DELAYS)
def test_a_key_leaves_two_hundred_bytes_for_the_target(delay: float) -> None:
    _, key, _ = ladder.address(delay, "t" * 199)
    _, key_of_a_copy, _ = ladder.address(delay, ladder.to_queue("q" * 249))

    assert len(key.encode()) == len(key_of_a_copy.encode()) == 255


@given(DELAYS)
def test_a_retry_has_a_header_for_six_levels_at_most(delay: float) -> None:
    _, _, headers = ladder.address(ladder.rounded(delay), ladder.to_queue("q"))

    assert len(headers) <= 6


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
