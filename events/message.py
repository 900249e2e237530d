"""A message as it travels: bytes, address, properties and headers, in no library's dialect."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias

Headers: TypeAlias = Mapping[str, Any]


@dataclass(slots=True)
class Message:
    """What a broker carries. Property names are AMQP 0-9-1's. Nothing changes it once it is made."""

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
