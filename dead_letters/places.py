"""Where dead letters are: which queues there are, how much is in them, and since when."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from ..broker import DEAD_SUFFIX, REGISTRY, Broker, Held, dead_letter_queue
from ..events import HoldfastError, QueueInUse, TopologyMissing
from .letter import key_of, read_letter


@dataclass(frozen=True, slots=True)
class Place:
    """A dead-letter queue. `oldest` is when its first letter died, where that could be read; `is_read`: another tool
    holds its letters now, so that they are not counted."""

    queue: str
    letters: int
    oldest: datetime | None
    is_read: bool = False
    worker: str = ""


async def places(broker: Broker, names: Iterable[str] = ()) -> list[Place]:
    """The named dead-letter queues, or all that workers have told of. Of each, the first letter is looked at."""
    known = dict.fromkeys(names, "") or await known_queues(broker)
    found = []
    for name, worker in sorted(known.items()):
        if (place := await _place(broker, name, worker)) is not None:
            found.append(place)
    return found


async def resolve(broker: Broker, name: str) -> str:
    """The dead-letter queue that a name means: `billing.charge` and `billing.charge.dead` mean the same.

    Raises `TopologyMissing`."""
    for candidate in (dead_letter_queue(name), name) if not name.endswith(DEAD_SUFFIX) else (name,):
        if await broker.count(candidate) is not None:
            return candidate
    tried = f" (nor {dead_letter_queue(name)!r})" if not name.endswith(DEAD_SUFFIX) else ""
    raise TopologyMissing(f"there is no queue {name!r}{tried}")


async def known_queues(broker: Broker) -> dict[str, str]:
    """The dead-letter queues that workers have told of when they started, with the worker that did. What is said twice
    is removed on the way."""
    held: list[Held] = []
    try:
        browser = await broker.browse(REGISTRY, held.append)
    except (TopologyMissing, QueueInUse):
        return {}
    try:
        await browser.caught_up()
        known: dict[str, str] = {}
        said: dict[bytes, int] = {}
        twice = []
        for one in held:
            if (earlier := said.get(one.message.body)) is not None:
                twice.append(earlier)
            said[one.message.body] = one.tag
            known |= _told(one.message.body)
        if twice:
            await browser.remove(*twice)
        return known
    finally:
        await browser.close()


def _told(body: bytes) -> dict[str, str]:
    try:
        told = json.loads(body)
        return {dead_letter_queue(str(queue)): str(told["worker"]) for queue in told["queues"]}
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}


async def _place(broker: Broker, queue: str, worker: str) -> Place | None:
    depth = await broker.count(queue)
    if depth is None:
        return None
    if not depth.ready:
        return Place(queue, 0, None, is_read=depth.consumers > 0, worker=worker)
    first: list[Held] = []
    try:
        browser = await broker.browse(queue, first.append, most=1)
    except QueueInUse:
        return Place(queue, depth.ready, None, is_read=True, worker=worker)
    try:
        await browser.caught_up()
    except HoldfastError:
        pass
    finally:
        await browser.close()
    letters = [read_letter(one.message, key=key_of(one.message), position=1) for one in first]
    return Place(queue, depth.ready, letters[0].failed_at if letters else None, worker=worker)
