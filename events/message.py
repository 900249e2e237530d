"""A message as it travels: bytes, address, properties and headers, in no library's dialect."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

Headers: TypeAlias = Mapping[str, Any]


@dataclass(slots=True, init=False)
class Message:
    """What a broker carries. Property names are AMQP 0-9-1's. Nothing changes it once it is made.

    Like each value that is made for every message it has an `__init__` of its own: mypyc does not compile that of a
    dataclass.
    """

    body: bytes
    exchange: str
    routing_key: str
    headers: Headers
    message_id: str | None
    type: str | None
    content_type: str | None
    content_encoding: str | None
    correlation_id: str | None
    timestamp: datetime | None
    app_id: str | None
    priority: int | None
    reply_to: str | None

    def __init__(
        self, body: bytes, exchange: str = "", routing_key: str = "", headers: Headers | None = None,
        message_id: str | None = None, type: str | None = None, content_type: str | None = None,  # noqa: A002
        content_encoding: str | None = None, correlation_id: str | None = None, timestamp: datetime | None = None,
        app_id: str | None = None, priority: int | None = None, reply_to: str | None = None,
    ) -> None:  # fmt: skip
        self.body, self.exchange, self.routing_key = body, exchange, routing_key
        self.headers = {} if headers is None else headers
        self.message_id, self.type, self.app_id, self.timestamp = message_id, type, app_id, timestamp
        self.content_type, self.content_encoding = content_type, content_encoding
        self.correlation_id, self.reply_to, self.priority = correlation_id, reply_to, priority
