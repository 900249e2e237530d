"""`holdfast keys`: what the owner of an ordered queue says of its keys, and what an operator tells it."""

import asyncio
import json
from typing import Any

from ..broker import Broker, Delivery, Queue, Topology, open_broker
from ..config import LogSettings
from ..consumer.ordering.commands import command
from ..events import ConfigurationError, HoldfastError, uuid7
from ..telemetry import configure_logging
from .load import load_worker
from .words import console, print_json

_PATIENCE = 30.0  # seconds for an answer: an owner that is being replaced answers as the next one
_KEPT = 60_000  # milliseconds that the queue of the answer outlives this command


def run_keys(target: str, handler: str, verb: str, key: str | None, *, as_json: bool) -> int:
    """Ask the owner of a handler's queue, and print its answer. Returns the exit code.

    Raises `ConfigurationError` for a handler that is not ordered, `HoldfastError` where no owner answers."""
    configure_logging(LogSettings(level="ERROR"))
    worker = load_worker(target)
    [spec] = worker.selected([handler])
    if spec.ordered is None:
        raise ConfigurationError(f"handler {handler!r} of worker {worker.name!r} is not ordered")

    async def asked() -> dict[str, Any]:
        broker = await open_broker(worker.settings, lambda fact: None)
        try:
            return await _ask(broker, spec.queue, verb, key)
        finally:
            await broker.close()

    answer = asyncio.run(asked())
    if as_json:
        print_json(answer)
    else:
        _print(answer, verb)
    return 1 if "error" in answer else 0


async def _ask(broker: Broker, queue: str, verb: str, key: str | None) -> dict[str, Any]:
    to = f"holdfast.keys.{uuid7()}"
    await broker.declare(Topology(queues=(Queue(to, {"x-queue-type": "classic", "x-expires": _KEPT}),)))
    answers: asyncio.Queue[Delivery] = asyncio.Queue()
    consumer = await broker.consume(to, prefetch=1, on_delivery=answers.put_nowait)
    try:
        await broker.publish(command(queue, verb, key, to), timeout=_PATIENCE)
        async with asyncio.timeout(_PATIENCE):
            delivery = await answers.get()
            await delivery.consumer.ack(delivery)
    except TimeoutError:
        raise HoldfastError(f"nobody owns {queue}: no worker runs, or it waits for its claim store") from None
    finally:
        await consumer.stop(close=True)
    answer: dict[str, Any] = json.loads(delivery.message.body)
    return answer


def _print(answer: dict[str, Any], verb: str) -> None:
    out = console()
    if verb in ("retry", "skip"):
        out.print(answer.get("done") or answer.get("error"), soft_wrap=True)
        return
    if verb == "show":
        for event in answer.get("events", []):
            out.print(f"{event['event_type']} {event['event_id']}{_why(event)}", soft_wrap=True)
        out.print(answer.get("error") or f"{answer['key']}: {answer['state']}, {answer['waiting']} wait")
        return
    for line in answer["keys"]:
        due = f", due {line['due']}" if line["due"] else ""
        out.print(f"{line['key']}: {line['state']}, {line['waiting']} wait{due}{_why(line)}", soft_wrap=True)
    out.print(f"{len(answer['keys']) + answer['more']} keys wait; the fence is {answer['fence']}")


def _why(event: dict[str, Any]) -> str:
    where = "dead" if event["is_dead"] else f"attempt {event['attempt']}"
    return f" ({where}: {event['cause']})" if event["cause"] else f" ({where})"
