"""What each producer's message becomes: a message of its shape is read, and docs/interop.md says what came of it."""

import gzip
import json
import re
import zlib
from dataclasses import dataclass
from typing import Any

import pytest
from builders import NOON
from pages import ROOT

from holdfast import DecodeError, Event, Settings, Worker
from holdfast.events import Incoming, Message, read_incoming

PAGE = (ROOT / "docs" / "interop.md").read_text()
ORDER = b'{"orderId": "o-1"}'
BOM = b"\xef\xbb\xbf"


class OrderCreated(Event, type="order.created"):
    orderId: str  # noqa: N815 (as other languages name it)


@dataclass(frozen=True)
class Row:
    """A message as a producer sends it to routing key `order.created`, and what it becomes."""

    producer: str
    body: bytes
    properties: dict[str, Any]
    type: str = "order.created"
    id: str = "none: not claimed"
    becomes: str = "the event"


def mass_transit() -> bytes:
    envelope = {"messageId": "6b1e0000-0000-0000-0000-000000000001", "messageType": ["urn:message:Acme:OrderCreated"]}
    return json.dumps({**envelope, "message": {"orderId": "o-1"}, "headers": {}, "host": {"machineName": "m"}}).encode()


JSON = {"content_type": "application/json"}
CELERY = {
    "headers": {"lang": "py", "task": "shop.order_created", "id": "c-1", "root_id": "c-1", "retries": 0},
    "content_type": "application/json",
    "content_encoding": "utf-8",
    "correlation_id": "c-1",
    "priority": 0,
}
TASK = b'[["o-1"], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'
CLOUD = {"specversion": "1.0", "id": "7", "source": "/shop", "type": "order.created"}
STRUCTURED = json.dumps({**CLOUD, "datacontenttype": "application/json", "data": {"orderId": "o-1"}}).encode()
BINARY = {"headers": {f"cloudEvents:{name}": value for name, value in CLOUD.items()}, **JSON}
N_SERVICE_BUS = {
    "headers": {"NServiceBus.MessageId": "n-1", "NServiceBus.EnclosedMessageTypes": "order.created, Acme"},
    "message_id": "n-1",
    "type": "order.created",
    "reply_to": "acme.shop",
    **JSON,
}
SPRING = {"headers": {"__TypeId__": "com.acme.OrderCreated"}, "content_encoding": "UTF-8", **JSON}
MASS_TRANSIT = {"message_id": "6b1e-1", "content_type": "application/vnd.masstransit+json", "headers": {}}
MESSAGE_ID, CLOUD_ID, HEADER = "`message_id`", "source and id", "the header"
UNREADABLE = "dead letter `unreadable`"
NOT_JSON = f"{UNREADABLE}: the content type is not JSON"
A_LIST = f"{UNREADABLE}: the body is a list"


def an_id(name: str) -> dict[str, Any]:
    return {"type": "order.created", "message_id": name, "headers": {}}


def typed_as(content_type: str) -> dict[str, Any]:
    return {"content_type": content_type}


def encoded(encoding: str) -> dict[str, Any]:
    return {"content_encoding": encoding, **JSON}


ROWS = [
    Row("JSON with `type` and `message_id`", ORDER, {**an_id("m-1"), **JSON}, id=MESSAGE_ID),
    Row("JSON with neither", ORDER, JSON),
    Row("pika, `basic_publish` with no properties", ORDER, {}),
    Row("aio-pika, `Message(body)`", ORDER, {"headers": {}}),
    Row("aio-pika, `Message(body, message_id=, type=)`", ORDER, an_id("a-1"), id=MESSAGE_ID),
    Row("an id in the header `event-id`, text or number", ORDER, {"headers": {"event-id": 42}}, id=HEADER),
    Row("Celery, protocol 2", TASK, CELERY, becomes=A_LIST),
    Row(
        """Celery, with `ID_HEADERS='["id"]'`, `TYPE_HEADERS='["task"]'`""",
        TASK,
        CELERY,
        type="shop.order_created",
        id=HEADER,
        becomes="dead letter `unknown-type`; a handler of `shop.#` that takes `bytes` gets the body",
    ),
    Row(
        "MassTransit",
        mass_transit(),
        MASS_TRANSIT,
        id=MESSAGE_ID,
        becomes=f"{UNREADABLE}: the event is in `message` of an envelope; a handler that takes a `dict` gets it",
    ),
    Row("NServiceBus, `type` its first enclosed type", BOM + ORDER, N_SERVICE_BUS, id=MESSAGE_ID),
    Row("Spring AMQP, JSON converter", ORDER, SPRING),
    Row(
        """Spring AMQP, with `TYPE_HEADERS='["__TypeId__"]'`""",
        ORDER,
        SPRING,
        type="com.acme.OrderCreated",
        becomes="dead letter `unknown-type`, unless a handler takes `com.acme.OrderCreated`",
    ),
    Row(
        "Spring AMQP, Java serialization",
        b"\xac\xed\x00\x05sr",
        typed_as("application/x-java-serialized-object"),
        becomes=NOT_JSON,
    ),
    Row("CloudEvents, binary (`cloudEvents:`, `cloudEvents_`, `ce-`)", ORDER, BINARY, id=CLOUD_ID),
    Row("CloudEvents, structured", STRUCTURED, typed_as("application/cloudevents+json; charset=utf-8"), id=CLOUD_ID),
    Row("CloudEvents, structured, sent as `text/plain`", STRUCTURED, typed_as("text/plain"), id=CLOUD_ID),
    Row(
        "CloudEvents, structured, sent as `application/json`",
        STRUCTURED,
        JSON,
        becomes=f"{UNREADABLE}: the event is in `data`; a handler that takes a `dict` gets the whole",
    ),
    Row("CloudEvents, a batch", b"[%b]" % STRUCTURED, typed_as("application/cloudevents-batch+json"), becomes=A_LIST),
    Row("JSON as `text/plain`, `application/octet-stream` or without a content type", ORDER, typed_as("text/plain")),
    Row("plain text", b"order o-1", typed_as("text/plain"), becomes=f"{UNREADABLE}: not JSON"),
    Row("JSON after a byte order mark", BOM + ORDER, JSON),
    Row("JSON, content encoding `gzip`", gzip.compress(ORDER), encoded("gzip")),
    Row("JSON, content encoding `deflate`", zlib.compress(ORDER), encoded("deflate")),
    Row(
        "JSON, content encoding `br` or `zstd`",
        b"\x0b\x02",
        encoded("br"),
        becomes=f"{UNREADABLE}: the encoding is not supported",
    ),
    Row(
        "JSON in UTF-16 or Latin-1",
        '{"orderId": "ö"}'.encode("latin-1"),
        typed_as("application/json; charset=iso-8859-1"),
        becomes=f"{UNREADABLE}: not JSON in UTF-8",
    ),
    Row("Protocol Buffers, Avro, MessagePack", b"\x81\xa7", typed_as("application/x-protobuf"), becomes=NOT_JSON),
]


def named(row: Row) -> dict[str, Any]:
    """The settings that a row tells of."""
    return {
        f"{word.lower()}_headers": tuple(json.loads(value))
        for word, value in re.findall(r"(ID|TYPE)_HEADERS='([^']*)'", row.producer)
    }


def read(row: Row) -> tuple[Incoming, Worker]:
    settings = Settings(_env_file=None, broker={"url": "memory://"}, worker=named(row))  # type: ignore[arg-type, call-arg]
    worker = Worker("interop", settings=settings)
    message = Message(row.body, "events", "order.created", **{"headers": {}, **row.properties})
    return read_incoming(message, NOON, settings.worker.names), worker


async def typed(event: OrderCreated) -> None: ...


async def raw(event: bytes) -> None: ...


async def loose(event: dict[str, Any]) -> None: ...


@pytest.mark.parametrize("row", ROWS, ids=[row.producer for row in ROWS])
def test_a_message_of_this_shape_becomes_what_the_page_says(row: Row) -> None:
    incoming, worker = read(row)
    worker.handler(OrderCreated)(typed)
    worker.handler("#")(raw)
    worker.handler("#", name="loose")(loose)
    of_class, of_bytes, of_dict = worker.handlers

    assert incoming.metadata.event_type == row.type
    assert incoming.has_id is (row.id != "none: not claimed")
    assert of_bytes.read(incoming) == row.body, "bytes are the body as it came"
    if row.becomes == "the event":
        assert of_class.read(incoming) == OrderCreated(orderId="o-1")
        return
    with pytest.raises(DecodeError) as failed:
        of_class.read(incoming)
    kind = {"Unreadable": "unreadable", "UnknownType": "unknown-type"}[type(failed.value).__name__]
    assert f"dead letter `{kind}`" in row.becomes
    if "a `dict` gets" in row.becomes:
        assert "orderId" in json.dumps(of_dict.read(incoming))


def test_the_page_has_a_line_for_each_shape_in_these_words() -> None:
    lines = [f"| {row.producer} | `{row.type}` | {row.id} | {row.becomes} |" for row in ROWS]

    table = PAGE.partition("<!-- producers -->\n")[2].partition("<!-- /producers -->")[0]
    assert table.splitlines()[2:] == lines


def test_a_small_message_that_unpacks_to_much_is_unreadable() -> None:
    bomb = gzip.compress(b'{"orderId": "' + b"0" * 40_000_000 + b'"}')
    incoming, worker = read(Row("bomb", bomb, {"content_type": "application/json", "content_encoding": "gzip"}))
    worker.handler(OrderCreated)(typed)

    with pytest.raises(DecodeError, match="more than 16777216 bytes unpacked"):
        worker.handlers[0].read(incoming)


@pytest.mark.parametrize(
    "body",
    [gzip.compress(ORDER)[:-9], b"", b"\x1f\x8b", gzip.compress(b""), ORDER],
    ids=["cut off", "empty", "a head alone", "nothing in it", "not compressed"],
)
def test_what_is_not_what_its_content_encoding_says_is_unreadable(body: bytes) -> None:
    row = Row("broken", body, {"content_type": "application/json", "content_encoding": "gzip"})
    incoming, worker = read(row)
    worker.handler(OrderCreated)(typed)

    with pytest.raises(DecodeError):
        worker.handlers[0].read(incoming)


def test_a_compressed_cloudevent_is_read_whole() -> None:
    row = Row("both", gzip.compress(STRUCTURED), {"content_type": "text/plain", "content_encoding": "gzip"})
    incoming, worker = read(row)
    worker.handler(OrderCreated)(typed)

    assert incoming.metadata.event_id == "/shop#7"
    assert worker.handlers[0].read(incoming) == OrderCreated(orderId="o-1")
