"""Builders of the values tests are about: say what matters, leave the rest."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast

from holdfast import Event, Settings
from holdfast.broker.amqp.deliveries import Deliveries
from holdfast.events import History, Incoming, Message, Metadata, read_incoming
from holdfast.telemetry import Fact, facts


class OrderCreated(Event, type="order.created", version=2, key="order_id"):
    order_id: str
    total: float = 1.0


NOON = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)


def a_message(body: bytes = b'{"order_id": "o-1", "total": 9.5}', **changes: Any) -> Message:
    values: dict[str, Any] = {
        "exchange": "events",
        "routing_key": "order.created",
        "message_id": "m-1",
        "type": "order.created",
        "content_type": "application/json",
    }
    return Message(body, **(values | changes))


def some_metadata(**changes: Any) -> Metadata:
    values: dict[str, Any] = {"event_id": "e-1", "event_type": "order.created", "time": NOON}
    return Metadata(**(values | changes))


def an_incoming(message: Message | None = None, history: History | None = None) -> Incoming:
    """A message as it comes, at noon; with `history` instead of what its headers say."""
    incoming = read_incoming(message or a_message(), NOON)
    return incoming if history is None else replace(incoming, history=history)


def a_history(attempt: int = 1) -> History:
    return History(attempt=attempt, first_failed_at=NOON if attempt > 1 else None)


def some_settings(**changes: Any) -> Settings:
    """Settings for the broker in this process; the environment is left out."""
    return Settings(_env_file=None, **{"broker": {"url": "memory://"}, **changes})


def facts_with_a_line() -> list[type[Fact]]:
    """Every kind of fact that is logged, in the order of `telemetry/facts.py`."""
    kinds = [kind for kind in vars(facts).values() if isinstance(kind, type) and issubclass(kind, Fact)]
    return [kind for kind in kinds if kind.log]


def a_tap(on_message: Callable[..., Any]) -> Deliveries:
    """A tap of deliveries that nobody settles."""
    return Deliveries(on_message, cast("Any", None), 1)
