"""Messages of other producers: pika, kombu and Debian's `amqp-publish`."""

import asyncio
import shutil
import subprocess
from typing import Any

import kombu
import pika
import pytest
from running import a_worker, running
from waiting import Facts

from holdfast import Context, Event, Settings
from holdfast.testing.servers.choose import install


class OrderCreated(Event, type="order.created"):
    order_id: str


BODY = b'{"order_id": "o-1", "of_another_age": true}'


def by_pika(settings: Settings) -> None:
    with pika.BlockingConnection(pika.URLParameters(settings.broker.url.get_secret_value())) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        properties = pika.BasicProperties(message_id="pika-1", content_type="application/json")
        channel.basic_publish(settings.broker.exchange, "order.created", BODY, properties, mandatory=True)


def by_kombu(settings: Settings) -> None:
    with kombu.Connection(settings.broker.url.get_secret_value()) as connection:
        producer = connection.Producer(serializer="json")
        producer.publish(
            {"order_id": "o-1"}, exchange=settings.broker.exchange, routing_key="order.created", message_id="kombu-1"
        )


def by_amqp_tools(settings: Settings) -> None:
    program = shutil.which("amqp-publish")
    if program is None:
        install("amqp-tools")
        program = "amqp-publish"
    url = settings.broker.url.get_secret_value().rstrip("/")  # a trailing slash names the empty virtual host
    command = [program, f"--url={url}", f"--exchange={settings.broker.exchange}", "--routing-key=order.created", "-p"]
    subprocess.run([*command, f"--body={BODY.decode()}"], check=True, timeout=30)


@pytest.mark.parametrize(
    ("produce", "event_id"),
    [(by_pika, "pika-1"), (by_kombu, "kombu-1"), (by_amqp_tools, None)],
    ids=["pika", "kombu", "amqp-publish"],
)
async def test_a_message_of_another_producer_reaches_the_handler_as_an_event(
    settings: Settings, produce: Any, event_id: str | None
) -> None:
    facts, seen = Facts(), []
    worker = a_worker(settings, facts)

    @worker.handler(OrderCreated)
    async def handle(event: OrderCreated, ctx: Context) -> None:
        seen.append((event, ctx.metadata))

    @worker.handler("order.created")
    async def as_dict(event: dict[str, Any]) -> None:
        assert event["order_id"] == "o-1"

    async with running(worker):
        await asyncio.to_thread(produce, settings)
        await facts.settled("handled", count=2)

    [(event, metadata)] = seen
    assert event == OrderCreated(order_id="o-1")
    assert metadata.event_type == "order.created"
    assert metadata.event_id == event_id or (event_id is None and metadata.event_id.startswith("sha256:"))
