"""Dead letters of other systems: shown with their own reason, error and origin, and replayed where they came from."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from builders import NOON, a_message

from holdfast import ConfigurationError
from holdfast.dead_letters import Index, Selection
from holdfast.dead_letters.letter import NO_NAMES, Letter, key_of, read_letter
from holdfast.dead_letters.replay import Edit, edited, replayed, target_of
from holdfast.events import Message, Names, read_metadata

FAILED = datetime(2026, 11, 29, 6, 0, 0, 123456, tzinfo=UTC)
MASS_TRANSIT = {
    "MT-Reason": "fault",
    "MT-Fault-ExceptionType": "Acme.CardDeclined",
    "MT-Fault-Message": "the card was declined",
    "MT-Fault-Timestamp": "2026-11-29T06:00:00.123456Z",
    "MT-Fault-StackTrace": "   at Acme.Charge.Consume()",
    "MT-Fault-InputAddress": "rabbitmq://broker.acme/shop/charge-orders?durable=true",
    "MT-Fault-ConsumerType": "Acme.Charge",
    "MT-Fault-MessageType": "Acme.OrderCreated",
    "MT-Host-MachineName": "acme-1",
}
N_SERVICE_BUS = {
    "NServiceBus.MessageId": "n-1",
    "NServiceBus.FailedQ": "charge-orders@acme-1",
    "NServiceBus.ExceptionInfo.ExceptionType": "Acme.CardDeclined",
    "NServiceBus.ExceptionInfo.Message": "the card was declined",
    "NServiceBus.ExceptionInfo.StackTrace": "   at Acme.Charge.Consume()",
    "NServiceBus.TimeOfFailure": "2026-11-29 06:00:00:123456 Z",
    "NServiceBus.EnclosedMessageTypes": "Acme.OrderCreated, Acme;Acme.IOrder, Acme",
    "NServiceBus.ProcessingEndpoint": "Acme.Charge",
    "NServiceBus.ProcessingMachine": "acme-1",
}
SPRING = {
    "__TypeId__": "Acme.OrderCreated",
    "x-exception-message": "the card was declined",
    "x-exception-stacktrace": "org.spring.ListenerFailed: x\n\tat a.B\nCaused by: Acme.CardDeclined: no\n\tat c.D\n",
    "x-original-exchange": "",
    "x-original-routingKey": "charge-orders",
}
CELERY = {
    "task": "Acme.OrderCreated",
    "id": "c-1",
    "retries": 2,
    "origin": "gen7@acme-1",
    "x-death": [{"reason": "rejected", "queue": "charge-orders", "time": FAILED, "count": 1, "exchange": "",
                 "routing-keys": ["charge-orders"]}],
}  # fmt: skip


def letter(headers: dict[str, Any], names: Names = NO_NAMES, **properties: Any) -> Letter:
    message = a_message(headers=headers, **{"type": None, "exchange": "", "routing_key": "errors", **properties})
    return read_letter(message, key=key_of(message), position=1, names=names)


@pytest.mark.parametrize(
    ("headers", "reason", "error_type", "error"),
    [
        (MASS_TRANSIT, "fault", "Acme.CardDeclined", "the card was declined"),
        (N_SERVICE_BUS, "fault", "Acme.CardDeclined", "the card was declined"),
        (SPRING, "fault", "Acme.CardDeclined", "the card was declined"),
        (CELERY, "rejected", "broker: rejected", ""),
    ],
    ids=["MassTransit", "NServiceBus", "Spring", "Celery"],
)
def test_a_letter_of_another_system_has_its_own_reason_error_and_origin(
    headers: dict[str, Any], reason: str, error_type: str, error: str
) -> None:
    seen = letter(headers)

    assert (seen.reason, seen.error_type, seen.error_message) == (reason, error_type, error)
    assert (seen.event_type, seen.target, seen.is_foreign) == ("Acme.OrderCreated", "charge-orders", True)
    assert target_of(seen, "errors") == "charge-orders"


@pytest.mark.parametrize("headers", [MASS_TRANSIT, N_SERVICE_BUS], ids=["MassTransit", "NServiceBus"])
def test_a_letter_of_another_system_says_when_and_where_it_failed(headers: dict[str, Any]) -> None:
    seen = letter(headers)

    assert (seen.failed_at, seen.handler, seen.worker) == (FAILED, "Acme.Charge", "acme-1")
    assert seen.traceback == "   at Acme.Charge.Consume()"


def test_a_task_of_celery_has_its_id_and_its_attempt() -> None:
    seen = letter(CELERY)

    assert (seen.event_id, seen.attempt, seen.worker) == ("c-1", 3, "gen7@acme-1")


@pytest.mark.parametrize("headers", [MASS_TRANSIT, N_SERVICE_BUS, SPRING])
def test_a_replay_leaves_out_what_was_written_of_the_failure(headers: dict[str, Any]) -> None:
    message = replayed(letter(headers | {"tenant": "blue"}), operation="r", target="charge-orders", forced=False)

    theirs = {name for name in message.headers if not name.startswith("holdfast-")}
    kept = {"NServiceBus.MessageId", "NServiceBus.EnclosedMessageTypes", "NServiceBus.ProcessingEndpoint",
            "NServiceBus.ProcessingMachine", "__TypeId__", "MT-Host-MachineName", "tenant"}  # fmt: skip
    assert theirs == kept & {*headers, "tenant"}


def test_a_replay_keeps_headers_of_an_application_that_are_named_alike() -> None:
    own = {"x-original-url": "/pay", "x-exception-count": "0"}

    message = replayed(letter(SPRING | own), operation="r", target="charge-orders", forced=False)

    assert message.headers.items() >= own.items()


@pytest.mark.parametrize("queue", ["orders_error", "orders_skipped", "orders.dlq", "orders.DLQ"])
def test_the_name_of_the_queue_says_where_to_where_the_letter_does_not(queue: str) -> None:
    skipped, unknown = letter({"MT-Reason": "dead-letter"}), letter({})

    assert (skipped.reason, target_of(skipped, queue)) == ("skipped", "orders")
    with pytest.raises(ConfigurationError, match="--to"):
        target_of(unknown, queue)


@pytest.mark.parametrize(("later", "reason"), [(timedelta(hours=1), "expired"), (-timedelta(hours=1), "fault")])
def test_of_a_failure_elsewhere_and_a_death_at_the_broker_the_later_counts(later: timedelta, reason: str) -> None:
    death = {"reason": "expired", "queue": "parked", "time": FAILED + later, "exchange": "", "routing-keys": ["parked"]}

    assert letter(N_SERVICE_BUS | {"x-death": [death]}).reason == reason


@pytest.mark.parametrize("value", [7, None, [], {}, "x" * 300_000, "rabbitmq://[", b"\xff"])
@pytest.mark.parametrize("headers", [MASS_TRANSIT, N_SERVICE_BUS, SPRING, CELERY])
def test_whatever_stands_in_these_headers_a_letter_is_read(headers: dict[str, Any], value: Any) -> None:
    for name in headers:
        assert isinstance(letter(headers | {name: value}).reason, str)


def test_a_letter_of_holdfast_is_its_own_whatever_else_it_carries() -> None:
    ours = {"holdfast-reason": "exhausted", "holdfast-queue": "q", "holdfast-error-type": "ValueError"}

    seen = letter(MASS_TRANSIT | ours, type="order.created")

    assert (seen.reason, seen.target, seen.error_type, seen.event_type) == (
        "exhausted",
        "q",
        "ValueError",
        "order.created",
    )


def test_the_edit_of_a_letter_that_rabbitmq_wrote_heeds_the_named_headers() -> None:
    names = Names(id=("id",), type=("task",))
    dead = letter(CELERY, names, message_id=None)

    made = edited(dead, Edit(body=b"{}"), operation="edit-1", target="charge-orders", names=names)
    metadata = read_metadata(made, NOON, names)

    assert (dead.event_id, made.type, metadata.causation_id) == ("c-1", "Acme.OrderCreated", "c-1")
    assert isinstance(made, Message)


def test_the_index_of_letters_heeds_the_named_headers() -> None:
    names = Names(id=("order-id",), type=("kind",))
    dead = letter({"order-id": "o-7", "kind": "order.created"}, names)
    index = Index(None, names)

    with index.rewriting():
        index.add([dead])

    [again] = index.letters(Selection())
    assert (again.event_id, again.event_type) == (dead.event_id, dead.event_type) == ("o-7", "order.created")
