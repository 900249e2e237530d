import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.broker import (
    DELIVERY_LIMIT,
    Binding,
    Exchange,
    Queue,
    Topology,
    dead_letter_queue,
    delayed_to_stream,
    events_topology,
    ladder,
    work_queue,
)
from holdfast.config import BrokerSettings

NAMES = st.sampled_from(["a", "b", "c"])
ARGUMENTS = st.dictionaries(st.sampled_from(["x-message-ttl", "x-max-length"]), st.integers(1, 3), max_size=2)
TOPOLOGIES = st.builds(
    Topology,
    st.lists(st.builds(Exchange, NAMES, st.sampled_from(["topic", "fanout"])), max_size=4).map(tuple),
    st.lists(st.builds(Queue, NAMES, ARGUMENTS), max_size=4).map(tuple),
    st.lists(st.builds(Binding, NAMES, NAMES, NAMES, st.booleans()), max_size=4).map(tuple),
)


@given(TOPOLOGIES, TOPOLOGIES)
def test_a_sum_holds_what_either_holds_once_and_in_order(one: Topology, two: Topology) -> None:
    total = one + two

    for field in dataclasses.fields(Topology):
        parts = getattr(one, field.name) + getattr(two, field.name)
        whole = getattr(total, field.name)
        assert [part for n, part in enumerate(parts) if part not in parts[:n]] == list(whole)


@given(TOPOLOGIES, TOPOLOGIES, TOPOLOGIES)
def test_adding_is_associative(one: Topology, two: Topology, three: Topology) -> None:
    assert (one + two) + three == one + (two + three)


@given(TOPOLOGIES)
def test_what_is_there_already_adds_nothing(topology: Topology) -> None:
    once = topology + Topology()

    assert once + topology == once
    assert Topology() + once == once


def test_queues_of_one_name_with_other_arguments_stay_apart_so_that_drift_is_found() -> None:
    total = Topology(queues=(Queue("a", {"x-message-ttl": 1}),)) + Topology(queues=(Queue("a", {"x-message-ttl": 2}),))

    assert len(total.queues) == 2


@pytest.mark.parametrize("kind", ["quorum", "classic"])
def test_a_work_queue_is_declared_the_same_every_time(kind: str) -> None:
    made = [work_queue("billing.charge", kind=kind, exchange="events", keys=("a", "b")) for _ in range(2)]  # type: ignore[arg-type]

    assert made[0] == made[1]
    assert made[0] + made[1] == made[0]


@pytest.mark.parametrize("kind", ["quorum", "classic"])
def test_a_work_queue_falls_back_to_its_own_dead_letter_queue(kind: str) -> None:
    topology = work_queue("billing.charge", kind=kind, exchange="events", keys=("order.created",))  # type: ignore[arg-type]

    dead, work = topology.queues
    assert dead == Queue("billing.charge.dead", {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000_000})
    assert work.name == "billing.charge"
    assert work.arguments["x-queue-type"] == kind
    assert work.arguments["x-dead-letter-exchange"] == ""
    assert work.arguments["x-dead-letter-routing-key"] == dead.name == dead_letter_queue(work.name)
    assert topology.bindings == (Binding("events", "billing.charge", "order.created"),)


def test_only_a_quorum_queue_bounds_deliveries_and_dead_letters_at_least_once() -> None:
    arguments = {
        kind: work_queue("q", kind=kind, exchange="events", keys=()).queues[1].arguments
        for kind in ("quorum", "classic")
    }

    quorum_only = {
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
        "x-delivery-limit": DELIVERY_LIMIT,
    }
    assert quorum_only.items() <= arguments["quorum"].items()
    assert not quorum_only.keys() & arguments["classic"].keys()


def test_whatever_is_bound_is_declared() -> None:
    taped = BrokerSettings(stream="tape")
    topology = (
        events_topology(taped)
        + ladder.ladder(86_400)
        + delayed_to_stream(taped)
        + work_queue("q", kind="quorum", exchange="events", keys=("a.b",))
    )

    exchanges = {exchange.name for exchange in topology.exchanges}
    queues = {queue.name for queue in topology.queues}
    for binding in topology.bindings:
        assert binding.source in exchanges
        assert binding.destination in (exchanges if binding.to_exchange else queues)


def test_no_name_is_declared_twice() -> None:
    topology = ladder.ladder(60) + ladder.ladder(86_400) + ladder.ladder(1)

    for things in (topology.exchanges, topology.queues):
        names = [thing.name for thing in things]
        assert len(names) == len(set(names))
