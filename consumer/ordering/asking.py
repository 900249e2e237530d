"""Asking the owner of an ordered queue: a command to its ledger, and the answer from a queue of its own."""

import asyncio
import json
from typing import Any, TypeAlias

from ...broker import Broker, Queue, Topology, open_broker
from ...config import Settings
from ...events import HoldfastError, Message, uuid7
from .commands import PATIENCE, command

Answer: TypeAlias = dict[str, Any]
"""What an owner says: `keys` that wait, one key with its `events`, what was `done`, or an `error`."""

_KEPT = 60_000  # milliseconds that the queue of the answer outlives its reader


async def ask_owner(
    settings: Settings, queue: str, verb: str, key: str | None = None, *, patience: float = PATIENCE
) -> Answer:
    """Send a command to the owner of a handler's queue, or of each partition, and return the answer.

    The connection is closed afterwards: one that lasts would declare the queue of each answer again.

    Args:
        settings: Where the broker is.
        queue: The handler's queue.
        verb: `list`, `show`, `retry` or `skip`.
        key: The key that is meant.
        patience: Seconds to wait for the answer.

    Returns:
        The answer; it has an `error` where the command could not be done.

    Raises:
        HoldfastError: No owner answers.
    """
    broker = await open_broker(settings, lambda fact: None)
    try:
        async with asyncio.timeout(patience):
            return await _ask(broker, queue, verb, key)
    except TimeoutError:
        raise HoldfastError(f"nobody owns {queue}: no worker runs, or it waits for its claim store") from None
    finally:
        await broker.close()


async def _ask(broker: Broker, queue: str, verb: str, key: str | None) -> Answer:
    to = f"holdfast.keys.{uuid7()}"
    await broker.declare(Topology(queues=(Queue(to, {"x-queue-type": "classic", "x-expires": _KEPT}),)))
    came: asyncio.Queue[tuple[Message, int] | str] = asyncio.Queue()
    attachment = await broker.attach(
        to, prefetch=1, on_taken=lambda message, tag, _: came.put_nowait((message, tag)), on_lost=came.put_nowait
    )
    answers = list[Answer]()
    try:
        await broker.publish(command(queue, verb, key, to), timeout=PATIENCE)
        expected = 1
        while len(answers) < expected:
            if isinstance(answer := await came.get(), str):
                raise HoldfastError(f"the answer of the owner of {queue} is lost: {answer}")
            attachment.remove(answer[1])
            answers.append(json.loads(answer[0].body))
            expected = answers[-1].pop("answers", 1)
    finally:
        await attachment.close()
    return _joined(answers) if verb == "list" else answers[0]


def _joined(answers: list[Answer]) -> Answer:
    """Return the keys of all partitions, how many events each has parked, and the highest fence."""
    keys = sorted((one for answer in answers for one in answer["keys"]), key=lambda one: str(one["key"]))
    more = sum(answer["more"] for answer in answers)
    parked = {queue: count for answer in answers for queue, count in answer.get("parked", {}).items()}
    return {"fence": max(answer["fence"] for answer in answers), "keys": keys, "more": more, "parked": parked}
