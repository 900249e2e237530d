"""How RabbitMQ writes down why a message left its queue: the `x-death` header, and the rule against cycles."""

from dataclasses import replace
from datetime import datetime

from ...events import Message, headers


def died(message: Message, queue: str, reason: str, at: datetime) -> Message:
    """The message with its death written down: one table per queue and reason, the latest first."""
    deaths = headers.deaths(message.headers)
    known = next((death for death in deaths if (death.get("queue"), death.get("reason")) == (queue, reason)), None)
    latest = (
        {**known, "count": known["count"] + 1}
        if known
        else {
            "count": 1,
            "reason": reason,
            "queue": queue,
            "time": at.replace(microsecond=0),
            "exchange": message.exchange,
            "routing-keys": [message.routing_key],
        }
    )
    first = {"x-first-death-exchange": message.exchange, "x-first-death-queue": queue, "x-first-death-reason": reason}
    others = [death for death in deaths if death is not known]
    return replace(message, headers={**first, **message.headers, "x-death": [latest, *others]})


def completes_a_cycle(message: Message, queue: str) -> bool:
    """Whether the message died in `queue` before and no rejection lies between: RabbitMQ drops it there."""
    for death in headers.deaths(message.headers):
        if death.get("reason") == "rejected":
            return False
        if death.get("queue") == queue:
            return True
    return False
