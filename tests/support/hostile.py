"""Messages made to break their reader: bodies, and properties that an AMQP library would not write by itself."""

import gzip
import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pika


def nested(depth: int, *, as_list: bool = False) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value] if as_list else {"a": value}
    return value


BODIES: dict[str, tuple[bytes, dict[str, Any]]] = {
    "nothing": (b"", {}),
    "cut off": (b'{"does": "ret', {}),
    "no UTF-8": (b'{"does": "\xff\xfe"}', {}),
    "half a surrogate pair": (b'{"does": "\\ud800"}', {}),
    "no number": (b'{"seq": NaN}', {}),
    "keys twice": (b'{"seq": 1, "seq": 2}', {}),
    "a wrong type": (b'{"seq": "many"}', {}),
    "no object": (b"[1, 2, 3]", {}),
    "100,000 levels": (b"[" * 100_000 + b"]" * 100_000, {}),
    "a million digits": (b'{"seq": ' + b"9" * 1_000_000 + b"}", {}),
    "2 MB": (b'{"does": "' + b"x" * 2_000_000 + b'"}', {}),
    "a bomb": (gzip.compress(b" " * 5_000_000), {"content_encoding": "gzip"}),
    "an unknown encoding": (b"{}", {"content_encoding": "x-unheard-of"}),
    "another content": (b"{}", {"content_type": "text/html; charset=utf-7"}),
    "a pickle": (pickle.dumps({"does": "return"}), {"content_type": "application/x-python-serialize"}),
}
"""By what is wrong: a body, and the properties that go with it."""

PROPERTIES: dict[str, dict[str, Any]] = {
    "time": {"timestamp": 2**62},
    "last-time": {"timestamp": 2**64 - 1},
    "deep-table": {"headers": {"deep": nested(1500)}},
    "deep-list": {"headers": {"deep": nested(1500, as_list=True)}},
    "id": {"message_id": b"\xff\xfe"},
    "type": {"type": b"\xff\xfe"},
    "header-name": {"headers": {b"\xff\xfe": 1}},
    "flood": {"headers": {f"h{n}": n for n in range(4000)}},
    "long": {"priority": 255, "reply_to": "x" * 255, "correlation_id": "y" * 255, "app_id": "\x00\x1b[31m"},
    "forged": {"headers": {"holdfast-attempt": 2**40, "event-id": "", "event-time": "9" * 300, "event-version": -1}},
    "forged-death": {"headers": {"x-death": [{"queue": "holdfast.delay.00", "reason": "expired", "count": 2**40}]}},
    "forged-way": {"headers": {"CC": ["nowhere"], "x-delay": -1, "x-delivery-count": 2**40, "holdfast-queue": "w"}},
}
"""By what is wrong: properties; bytes are written as they are."""


def encodable(properties: dict[str, Any]) -> pika.BasicProperties:
    """pika writes bytes into short strings as they are, where they look like text to it."""

    class Raw(str):  # noqa: SLOT000
        raw: bytes

        def encode(self, *arguments: Any, **keywords: Any) -> bytes:
            return self.raw

    def as_raw(value: Any) -> Any:
        if isinstance(value, bytes):
            text = Raw("raw")
            text.raw = value
            return text
        return value

    made = {name: as_raw(value) for name, value in properties.items()}
    if isinstance(made.get("headers"), dict):
        made["headers"] = {as_raw(name): value for name, value in made["headers"].items()}
    return pika.BasicProperties(**made)


@contextmanager
def room_for_recursion() -> Iterator[None]:
    """pika's, which writes nested tables by calling itself."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def publish_raw(url: str, exchange: str, key: str, messages: list[tuple[bytes, dict[str, Any]]]) -> None:
    """Publish messages through pika, confirmed and mandatory."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection, room_for_recursion():
        channel = connection.channel()
        channel.confirm_delivery()
        for body, properties in messages:
            channel.basic_publish(exchange, key, body, encodable(properties), mandatory=True)
