"""What is counted, from which fact, under which labels."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from builders import NOON, some_metadata
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics import exposition

from holdfast.config import VERSION
from holdfast.telemetry import (
    Attached,
    Connected,
    ConsumerStarted,
    Detached,
    Disconnected,
    Draining,
    IdGuessed,
    Links,
    LoopTurned,
    Metrics,
    PartitionFigures,
    Paused,
    Published,
    QueueFigures,
    Resumed,
    Settled,
    SharedFigures,
    Started,
    Stopped,
    Unfollowed,
    fan_out,
    metrics_of,
)
from holdfast.telemetry.families import FAMILIES
from holdfast.telemetry.shared_figures import read, reset

REGISTERED = "order.created"

# API.md: names and labels that users rely on.
PROMISED = {
    "holdfast_messages_received_total": ("queue",),
    "holdfast_messages_settled_total": ("queue", "handler", "event_type", "outcome"),
    "holdfast_handler_seconds": ("queue", "handler"),
    "holdfast_event_age_seconds": ("queue", "handler"),
    "holdfast_in_flight": ("queue",),
    "holdfast_retries_total": ("queue", "handler", "error"),
    "holdfast_dead_letters_total": ("queue", "handler", "reason"),
    "holdfast_published_total": ("event_type", "outcome"),
    "holdfast_publish_seconds": (),
    "holdfast_claims_total": ("queue", "result"),
    "holdfast_completions_total": ("queue", "result"),
    "holdfast_claim_seconds": (),
    "holdfast_broker_connected": ("role",),
    "holdfast_broker_info": ("role", "vhost"),
    "holdfast_broker_reconnects_total": ("role",),
    "holdfast_consumer_attached": ("queue",),
    "holdfast_paused": ("queue", "reason"),
    "holdfast_loop_lag_seconds": (),
    "holdfast_build_info": ("version",),
}


def registry_of(metrics: Metrics) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(metrics)
    return registry


def some_metrics() -> tuple[Metrics, CollectorRegistry]:
    metrics = Metrics()
    metrics(Started("w", ("q",), 1, (REGISTERED,)))
    return metrics, registry_of(metrics)


def a_settled(event_type: str = REGISTERED, **changes: Any) -> Settled:
    values: dict[str, Any] = {"attempt": 1, "outcome": "handled", "handler_seconds": 0.5}
    return Settled("q", "h", some_metadata(event_type=event_type, time=datetime.now(UTC)), **(values | changes))


def test_the_promised_metrics_are_there_with_the_promised_labels() -> None:
    assert PROMISED.items() <= {family.name: family.labels for family in FAMILIES}.items()


def test_a_settled_delivery_is_counted_by_its_outcome_and_timed() -> None:
    metrics, registry = some_metrics()

    metrics(a_settled(claim="acquired", claim_seconds=0.002))
    metrics(a_settled(outcome="duplicate", handler_seconds=0.0, claim="duplicate"))
    metrics(a_settled(outcome="postponed", error="E: x", error_type="E", delay=1.0))
    metrics(a_settled(outcome="dead_lettered", reason="exhausted", error_type="E"))
    metrics(a_settled(outcome="given_back"))

    where = {"queue": "q", "handler": "h"}
    for outcome in ("handled", "duplicate", "postponed", "dead_lettered", "given_back"):
        labels = where | {"event_type": REGISTERED, "outcome": outcome}
        assert registry.get_sample_value("holdfast_messages_settled_total", labels) == 1
    assert registry.get_sample_value("holdfast_handler_seconds_count", where) == 4
    assert registry.get_sample_value("holdfast_handler_seconds_sum", where) == 2.0
    assert registry.get_sample_value("holdfast_handler_seconds_bucket", where | {"le": "0.25"}) == 0
    assert registry.get_sample_value("holdfast_handler_seconds_bucket", where | {"le": "0.5"}) == 4
    assert registry.get_sample_value("holdfast_event_age_seconds_count", where) == 2
    assert registry.get_sample_value("holdfast_retries_total", where | {"error": "E"}) == 1
    assert registry.get_sample_value("holdfast_dead_letters_total", where | {"reason": "exhausted"}) == 1
    assert registry.get_sample_value("holdfast_claims_total", {"queue": "q", "result": "acquired"}) == 1
    assert registry.get_sample_value("holdfast_claims_total", {"queue": "q", "result": "duplicate"}) == 1
    assert registry.get_sample_value("holdfast_claim_seconds_count") == 2


def test_each_message_without_an_id_is_counted_by_its_queue_from_nothing_on() -> None:
    metrics, registry = some_metrics()
    a_consumer(metrics)
    name, queue = "holdfast_messages_without_id_total", {"queue": "q"}

    before = registry.get_sample_value(name, queue)
    for _ in range(3):
        metrics(IdGuessed("q"))

    assert (before, registry.get_sample_value(name, queue)) == (0, 3)


@pytest.mark.parametrize("result", ["recorded", "fenced", "absent", "unrecorded"])
def test_completions_are_counted_by_their_result(result: str) -> None:
    metrics, registry = some_metrics()

    metrics(a_settled(claim="acquired", completion=result))
    metrics(a_settled(claim="acquired", completion=result))
    metrics(a_settled(claim="duplicate", outcome="duplicate"))

    assert registry.get_sample_value("holdfast_completions_total", {"queue": "q", "result": result}) == 2
    assert generate_latest(registry).decode().count("holdfast_completions_total{") == 1


def test_an_event_that_waits_for_another_worker_is_postponed_and_no_retry() -> None:
    metrics, registry = some_metrics()

    metrics(a_settled(outcome="postponed", claim="busy", delay=5.0))

    assert "holdfast_retries_total{" not in generate_latest(registry).decode()


def a_consumer(metrics: Metrics, queue: str = "q") -> QueueFigures:
    """What a run of a worker counts about one of its queues."""
    figures = QueueFigures(queue)
    metrics(ConsumerStarted(queue, figures))
    return figures


def figures_of_consumers(registry: CollectorRegistry) -> tuple[float | None, ...]:
    names = ("holdfast_messages_received_total", "holdfast_in_flight", "holdfast_consumer_attached")
    return tuple(registry.get_sample_value(name, {"queue": "q"}) for name in names)


def test_the_figures_of_a_consumer_are_read_at_each_scrape() -> None:
    metrics, registry = some_metrics()

    figures = a_consumer(metrics)
    first = figures_of_consumers(registry)
    figures.received, figures.in_flight, figures.attached = 2, 1, True
    second = figures_of_consumers(registry)
    figures.in_flight = 0

    assert (first, second, figures_of_consumers(registry)) == ((0, 0, 0), (2, 1, 1), (2, 0, 1))


def test_the_second_run_of_a_worker_goes_on_counting_what_the_first_received() -> None:
    metrics, registry = some_metrics()

    first = a_consumer(metrics)
    first.received, first.in_flight, first.attached = 2, 1, True
    metrics(Stopped("w", 1))
    second = a_consumer(metrics)
    second.received = 3

    assert figures_of_consumers(registry) == (5, 0, 0)


def test_a_stopped_worker_leaves_its_last_figures_behind() -> None:
    metrics = Metrics()

    figures = a_consumer(metrics)
    figures.received = 7
    metrics(Stopped("w", 0))

    assert dict(read(metrics.figures.memory))["holdfast_messages_received_total", "q"] == (7.0,)


def test_connections_and_consumers_are_seen_to_go_and_to_come_back() -> None:
    metrics, registry = some_metrics()
    emit, seen = fan_out((Links(), metrics)), []
    emit(ConsumerStarted("q", QueueFigures("q")))

    for fact in (
        Connected("consume", "amqp://h", "RabbitMQ"),
        Attached("q", 1),
        Disconnected("consume", "amqp://host/", "lost", 0.1),
        Detached("q", "lost", 0.1),
        Connected("consume", "amqp://h", "RabbitMQ"),
        Attached("q", 2),
        Draining("w", 0, 30),
    ):
        emit(fact)
        up = registry.get_sample_value("holdfast_broker_connected", {"role": "consume"})
        attached = registry.get_sample_value("holdfast_consumer_attached", {"queue": "q"})
        seen.append((up, attached))

    assert seen == [(1, 0), (1, 1), (0, 1), (0, 0), (1, 0), (1, 1), (1, 0)]
    assert registry.get_sample_value("holdfast_broker_reconnects_total", {"role": "consume"}) == 1
    assert registry.get_sample_value("holdfast_broker_reconnects_total", {"role": "publish"}) == 0


@pytest.mark.parametrize(("queues", "consuming"), [(("q",), 0), ((), None)])
def test_a_worker_that_consumes_no_queue_has_no_lost_connection_to_consume(
    queues: tuple[str, ...], consuming: int | None
) -> None:
    """A worker with projections alone never opens it: the alarm of a lost connection would not end."""
    metrics = Metrics()
    registry = registry_of(metrics)

    metrics(Started("w", queues, 1))

    seen = [registry.get_sample_value("holdfast_broker_connected", {"role": role}) for role in ("consume", "publish")]
    assert seen == [consuming, 0]


@pytest.mark.parametrize(
    ("url", "vhost"), [("amqp://h", "/"), ("amqp://h/", "/"), ("amqp://h/%2F", "/"), ("amqps://h:1/a%2Fb", "a/b")]
)
def test_a_connection_names_its_virtual_host(url: str, vhost: str) -> None:
    metrics, registry = some_metrics()

    metrics(Connected("consume", url, "RabbitMQ"))

    assert registry.get_sample_value("holdfast_broker_info", {"role": "consume", "vhost": vhost}) == 1


def test_a_pause_is_seen_while_it_lasts() -> None:
    metrics, registry = some_metrics()
    emit, labels = fan_out((Links(), metrics)), {"queue": "q", "reason": "claim store"}

    for fact in (ConsumerStarted("q", QueueFigures("q")), Attached("q", 1), Paused("q", "claim store", "refused")):
        emit(fact)
    while_it_lasts = registry.get_sample_value("holdfast_paused", labels)
    attached = registry.get_sample_value("holdfast_consumer_attached", {"queue": "q"})
    emit(Resumed("q", "claim store", 2.0))

    assert (while_it_lasts, attached, registry.get_sample_value("holdfast_paused", labels)) == (1, 0, 0)


def test_a_consumer_whose_ledger_is_full_stays_attached() -> None:
    metrics, registry = some_metrics()
    emit = fan_out((Links(), metrics))

    for fact in (ConsumerStarted("q", QueueFigures("q")), Attached("q", 1), Paused("q", "parked", "it is full")):
        emit(fact)

    assert registry.get_sample_value("holdfast_paused", {"queue": "q", "reason": "parked"}) == 1
    assert registry.get_sample_value("holdfast_consumer_attached", {"queue": "q"}) == 1


def test_the_figures_of_partitions_are_those_of_their_queue_and_the_intake_is_none() -> None:
    metrics, registry = some_metrics()
    intake, first, second = PartitionFigures("q", is_intake=True), PartitionFigures("q.0"), PartitionFigures("q.1")
    intake.owned = first.owned = second.owned = 1
    first.parked, second.parked, second.held = 2, 3, 1
    metrics(ConsumerStarted("q", QueueFigures("q", lane_wait=0.5, partitions=(intake, first, second))))

    names = ("parked", "held_keys", "partitions_owned", "lane_wait_seconds")
    values = [registry.get_sample_value(f"holdfast_{name}", {"queue": "q"}) for name in names]

    assert values == [5, 1, 2, 0.5]


def test_publishes_are_counted_by_what_the_broker_said() -> None:
    metrics, registry = some_metrics()

    metrics(Published("invoice.sent", "confirmed", 0.003))
    metrics(Published("invoice.sent", "unroutable", 0.003))

    for outcome in ("confirmed", "unroutable"):
        labels = {"event_type": "invoice.sent", "outcome": outcome}
        assert registry.get_sample_value("holdfast_published_total", labels) == 1
    assert registry.get_sample_value("holdfast_publish_seconds_count") == 2


def test_a_request_that_could_not_be_followed_is_counted_by_its_type() -> None:
    metrics, registry = some_metrics()

    metrics(Unfollowed("invoice.sent", "e-1", "e-1", "Redis did not answer in time"))

    assert registry.get_sample_value("holdfast_unfollowed_total", {"event_type": "invoice.sent"}) == 1


def test_the_loop_lag_is_the_worst_of_the_last_turns() -> None:
    metrics, registry = some_metrics()

    for lag in (0.0, 0.7, 0.1):
        metrics(LoopTurned(lag))
    soon = registry.get_sample_value("holdfast_loop_lag_seconds")
    for _ in range(60):
        metrics(LoopTurned(0.01))

    assert (soon, registry.get_sample_value("holdfast_loop_lag_seconds")) == (0.7, 0.01)


def test_the_build_is_told() -> None:
    _, registry = some_metrics()

    assert registry.get_sample_value("holdfast_build_info", {"version": VERSION}) == 1


def test_senders_cannot_invent_label_values() -> None:
    metrics, registry = some_metrics()

    for number in range(1_000):
        metrics(a_settled(f"invented.{number}"))
        metrics(a_settled(outcome="postponed", error_type=f"Invented{number}"))
        metrics(Published(f"invented.{number}", "confirmed", 0.001))

    page = generate_latest(registry).decode()
    labels = {"queue": "q", "handler": "h", "event_type": "other", "outcome": "handled"}
    assert registry.get_sample_value("holdfast_messages_settled_total", labels) == 1_000
    assert page.count("holdfast_messages_settled_total{") == 2
    assert page.count("holdfast_retries_total{") == page.count("holdfast_published_total{") == 101


def test_an_event_ages_by_the_clock_that_is_given() -> None:
    metrics = Metrics(now=lambda: NOON + timedelta(seconds=7))

    metrics(Settled("q", "h", some_metadata(time=NOON), 1, "handled", 0.1))

    labels = {"queue": "q", "handler": "h"}
    assert registry_of(metrics).get_sample_value("holdfast_event_age_seconds_sum", labels) == 7


def test_an_event_from_a_clock_that_is_ahead_has_no_negative_age() -> None:
    metrics, registry = some_metrics()
    ahead = some_metadata(event_type=REGISTERED, time=datetime.now(UTC) + timedelta(hours=1))

    metrics(Settled("q", "h", ahead, 1, "handled", 0.1))

    assert registry.get_sample_value("holdfast_event_age_seconds_sum", {"queue": "q", "handler": "h"}) == 0


def test_histograms_point_at_an_event_where_the_format_allows_it() -> None:
    metrics, registry = some_metrics()
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    metadata = some_metadata(event_id="e-7", event_type=REGISTERED, time=datetime.now(UTC), traceparent=traceparent)

    metrics(Settled("q", "h", metadata, 1, "handled", 0.2))

    told = exposition.generate_latest(registry).decode()
    assert 'le="0.25",queue="q"} 1.0 # {event_id="e-7",trace_id="0af7651916cd43dd8448eb211c80319c"} 0.2' in told
    assert "e-7" not in generate_latest(registry).decode()


def test_an_id_too_long_for_an_exemplar_is_left_out() -> None:
    metrics, registry = some_metrics()

    metrics(Settled("q", "h", some_metadata(event_id="e" * 255, event_type=REGISTERED), 1, "handled", 0.2))

    assert "e" * 200 not in exposition.generate_latest(registry).decode()


def test_counters_go_on_where_an_earlier_process_left_them_and_gauges_begin_again() -> None:
    first = SharedFigures()
    metrics = Metrics(first)
    figures = a_consumer(metrics)
    figures.received, figures.in_flight, figures.attached = 1, 1, True
    metrics.refresh()

    reset(first.memory, frozenset({"holdfast_in_flight", "holdfast_consumer_attached"}))
    again = Metrics(SharedFigures(first.memory))
    a_consumer(again).received = 1

    registry = registry_of(again)
    assert registry.get_sample_value("holdfast_messages_received_total", {"queue": "q"}) == 2
    assert registry.get_sample_value("holdfast_in_flight", {"queue": "q"}) == 0
    assert registry.get_sample_value("holdfast_consumer_attached", {"queue": "q"}) == 0


def test_several_processes_are_told_of_as_one() -> None:
    processes = [Metrics(), Metrics()]
    for number, metrics in enumerate(processes):
        for fact in (
            Started("w", ("q",), 1, (REGISTERED,)),
            a_settled(),
            LoopTurned(0.1 * number),
        ):
            metrics(fact)
        figures = a_consumer(metrics)
        figures.received, figures.in_flight, figures.attached = 1, 1, number == 0
        metrics.refresh()

    told = {
        (sample.name, sample.labels.get("le")): sample.value
        for metric in metrics_of([metrics.figures.memory for metrics in processes])
        for sample in metric.samples
    }

    assert told["holdfast_messages_received_total", None] == 2
    assert told["holdfast_in_flight", None] == 2
    assert told["holdfast_messages_settled_total", None] == 2
    assert told["holdfast_handler_seconds_bucket", "0.5"] == 2
    assert told["holdfast_consumer_attached", None] == 0
    assert told["holdfast_loop_lag_seconds", None] == 0.1
    assert told["holdfast_build_info", None] == 1


def test_a_block_that_is_full_goes_on_counting_what_it_knows() -> None:
    figures = SharedFigures()
    known = figures.offset(("known",))

    offsets = {figures.offset((f"{number}" * 500, "x" * 2_000)) for number in range(10_000)}
    for offset in offsets:
        figures.values[offset] += 1
    figures.values[known] += 1

    series = dict(read(figures.memory))
    assert len(series) < 10_001
    assert series["known",] == (1.0,)


@pytest.mark.parametrize("size", [1, 18])
def test_what_is_written_can_be_read(size: int) -> None:
    figures = SharedFigures()

    for number in range(50):
        offset = figures.offset(("family", "ü" * number, '"'), size)
        figures.values[offset + size - 1] = float(number)

    assert [values[-1] for _, values in read(figures.memory)] == [float(number) for number in range(50)]
