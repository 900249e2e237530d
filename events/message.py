"""A message as it travels: bytes, address, properties and headers, in no library's dialect."""

from collections.abc import Mapping
from dataclasses import field
from datetime import datetime
from typing import Any, TypeAlias

from .value import value

Headers: TypeAlias = Mapping[str, Any]


@value
class Message:
    """What a broker carries. Property names are AMQP 0-9-1's."""

    body: bytes
    exchange: str = ""
    routing_key: str = ""
    headers: Headers = field(default_factory=dict)
    message_id: str | None = None
    type: str | None = None
    content_type: str | None = None
    content_encoding: str | None = None
    correlation_id: str | None = None
    timestamp: datetime | None = None
    app_id: str | None = None
    priority: int | None = None
    reply_to: str | None = None
