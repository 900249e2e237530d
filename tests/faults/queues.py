"""What is in the queues of a run."""

from typing import Any

from aiormq.exceptions import AMQPError
from breaking import a_channel

from holdfast import Settings
from holdfast.events import headers as h


async def waiting(settings: Settings, names: list[str]) -> int:
    """How many messages wait in these queues; at least 1 where the broker does not say."""
    try:
        async with a_channel(settings) as channel:
            return sum([(await channel.queue_declare(name, passive=True)).message_count or 0 for name in names])
    except Exception:  # noqa: BLE001 (it is not there yet)
        return 1


async def take(settings: Settings, queue: str) -> list[dict[str, Any]]:
    """Take all messages out of a queue: their headers."""
    taken = list[dict[str, Any]]()
    async with a_channel(settings) as channel:
        while (got := await channel.basic_get(queue, no_ack=True)).delivery_tag is not None:
            taken.append(dict(got.header.properties.headers or {}))
    return taken


async def left(settings: Settings, queue: str) -> list[str]:
    """The events that are still in a queue, or why that cannot be seen."""
    try:
        return [str(told.get(h.EVENT_ID)) for told in await take(settings, queue)]
    except AMQPError as error:  # such as that of a queue without a leader
        return [f"{type(error).__name__}: {error}"]
