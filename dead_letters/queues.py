"""The dead-letter queues of a broker: their names, how much is in them, and since when."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from ..broker import DEAD_SUFFIX, REGISTRY, Broker, Held, dead_letter_queue
from ..events import QueueInUse, TopologyMissing

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class DeadQueue:
    """A dead-letter queue. `oldest` is when the first of its letters died, by the last reading; `is_read`: another tool
    holds its letters now, so that they are not counted."""

    queue: str
    letters: int
    oldest: datetime | None
    is_read: bool = False
    worker: str = ""


async def resolve(broker: Broker, name: str, *, any_queue: bool = False) -> str:
    """The dead-letter queue that a name means: `billing.charge` and `billing.charge.dead` mean the same. Queues that
    are not called as Holdfast calls those of dead letters are meant only with `any_queue`.

    Raises `TopologyMissing`."""
    dead = name if name.endswith(DEAD_SUFFIX) else dead_letter_queue(name)
    there = list[str]()
    for candidate in dict.fromkeys((dead, name)):
        try:
            if await broker.count(candidate) is not None:
                there.append(candidate)
        except ValueError:
            raise TopologyMissing(f"{name[:100]!r} can be no name of a queue") from None
    if dead in there or (there and any_queue):
        return there[0]
    if there:
        raise TopologyMissing(
            f"{name!r} is not a dead-letter queue of Holdfast, whose names end with {DEAD_SUFFIX}; "
            "holdfast dead --any-queue works on any"
        )
    raise TopologyMissing(f"there is no queue {name!r}" + (f" (nor {dead!r})" if dead != name else ""))


async def known_queues(broker: Broker) -> dict[str, str]:
    """Return the dead-letter queues that workers have registered at their start, each with its worker. A registration
    that stands there twice is removed."""
    held: list[Held] = []
    try:
        browser = await broker.browse(REGISTRY, held.append)
    except (TopologyMissing, QueueInUse):
        return {}
    try:
        await browser.caught_up()
        last = {one.message.body: one.tag for one in held}
        if twice := [one.tag for one in held if one.tag != last[one.message.body]]:
            await browser.remove(*twice)
        return {queue: worker for one in held for queue, worker in _queues_in(one.message.body).items()}
    finally:
        await browser.close()


async def several(ask: Callable[[str], Awaitable[T]], names: Iterable[str], *, at_a_time: int) -> dict[str, T]:
    """What is answered for each name, sorted by name. The first that fails ends the others."""
    left, answers = iter(names), dict[str, T]()

    async def go_on() -> None:
        for name in left:
            answers[name] = await ask(name)

    asking = [asyncio.create_task(go_on()) for _ in range(at_a_time)]
    try:
        await asyncio.gather(*asking)
    finally:
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
    return {name: answers[name] for name in sorted(answers)}


def _queues_in(body: bytes) -> dict[str, str]:
    try:
        note = json.loads(body)
        return {dead_letter_queue(str(queue)): str(note["worker"]) for queue in note["queues"]}
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
