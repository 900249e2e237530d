"""On a real broker: an event is the same one when it is tried again and when its dead letter is replayed."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cloudevents.core.bindings import amqp
from cloudevents.core.v1.event import CloudEvent
from morgue import a_desk, replay
from running import a_broker, a_worker, running
from waiting import Facts

from holdfast import Context, Event, Retry, Settings
from holdfast.events import Message, seal, to_message, uuid7

BODY = b'{"order_id": "o-1"}'


class Ordered(Event, type="preserved.ordered", version=2, key="order_id"):
    order_id: str


def cloud_event() -> CloudEvent:
    attributes = {
        "type": "preserved.ordered",
        "source": "/shop/1",
        "id": "7",
        "subject": "o-1",
        "eventversion": "2",
        "datacontenttype": "application/json",
        "correlationid": "c-1",
        "traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01",
    }
    return CloudEvent(attributes=attributes, data={"order_id": "o-1"})


def of_amqp(made: amqp.AMQPMessage) -> dict[str, Any]:
    headers = dict(made.application_properties)
    return {"body": made.application_data, "content_type": made.properties["content-type"], "headers": headers}


def as_text() -> dict[str, Any]:
    whole = {**of_amqp(amqp.to_structured_event(cloud_event())), "content_type": "text/plain"}
    assert json.loads(whole["body"])["specversion"] == "1.0"
    return whole


MESSAGES: dict[str, dict[str, Any]] = {
    "CloudEvent, binary": of_amqp(amqp.to_binary_event(cloud_event())),
    "CloudEvent, structured": of_amqp(amqp.to_structured_event(cloud_event())),
    "CloudEvent, as text": as_text(),
    "with a number for an id": {"body": BODY, "headers": {"event-id": 7, "event-version": "2", "ratio": 0.1}},
    "without an id": {"body": BODY, "headers": {"event-version": 2, "tenant": "blue"}, "app_id": "pika"},
}


def ours() -> Message:
    return to_message(seal(Ordered(order_id="o-1"), source="shop"), exchange="", extra={"tenant": "blue"})


@pytest.mark.parametrize("name", [*MESSAGES, "ours"])
async def test_each_run_of_an_event_sees_the_same_event(settings: Settings, tmp_path: Path, name: str) -> None:
    facts, seen, runs = Facts(), list[Any](), [0]
    worker = a_worker(settings, facts)
    exchange, key = settings.broker.exchange, "preserved.ordered"

    @worker.handler(Ordered, name="handle", retry=Retry(attempts=2))
    async def handle(event: Ordered, ctx: Context) -> None:
        seen.append((event, ctx.metadata, ctx.headers))
        runs[0] += 1
        if runs[0] <= 2:
            raise ValueError("a failure")

    if name == "ours":
        message = replace(ours(), exchange=exchange, routing_key=key)
    else:
        message_id = None if name == "without an id" else uuid7()
        message = Message(exchange=exchange, routing_key=key, message_id=message_id, **MESSAGES[name])

    async with running(worker), a_broker(settings) as broker, a_desk(settings, tmp_path) as desk:
        await broker.publish(message, timeout=10)
        await facts.settled("dead_lettered")
        operation = await replay(desk, f"{worker.name}.handle.dead")
        await facts.settled("handled")

    assert dict(operation.counts) == {"handled": 1}
    first, *others = seen
    assert first[0] == Ordered(order_id="o-1") and first[1].version == 2
    assert others == [first, first]
