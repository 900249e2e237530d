"""Reading a dead-letter queue into an index. The letters stay where they are."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from ..broker import Broker, Browser, Held, Topology, resting_queue
from ..events import BrokerUnavailable, HoldfastError, TopologyDrift
from .index import BATCH, Index
from .letter import Keys, Letter, read_letter

WORN = 15  # readings after which a queue that may have RabbitMQ 4's delivery limit of 20 is left alone


class WornOut(HoldfastError):
    """The letters have been delivered so often that the broker may drop them when they are read again."""


class Shelf:
    """A queue while it is being read. `tags` are what the browser knows the letters by; `is_sure` is set once what was
    removed is known to be off the queue."""

    def __init__(self, index: Index, keys: Keys, tell: Callable[[int], None]) -> None:
        self.tags: dict[str, int] = {}
        self.browser: Browser
        self.is_sure = False
        self._index = index
        self._keys = keys
        self._tell = tell
        self._fresh: list[Letter] = []
        self._complete = False

    def receive(self, held: Held) -> None:
        """A letter is lent. What arrives after the reading was complete is none of its concern."""
        if self._complete:
            return
        key = self._keys.next(held.message)
        self.tags[key] = held.tag
        position, names = len(self.tags), self._index.names
        self._fresh.append(read_letter(held.message, key=key, position=position, returns=held.returns, names=names))
        if len(self._fresh) >= BATCH:
            self._flush()

    def complete(self) -> None:
        self._complete = True
        self._flush()

    async def remove(self, keys: list[str]) -> bool:
        """Take letters off the queue. False where the connection was lost; see `Browser.remove`."""
        removed = await self.browser.remove(*(self.tags.pop(key) for key in keys))
        self._index.remove(keys)
        return removed

    def _flush(self) -> None:
        self._index.add(self._fresh)
        self._fresh.clear()
        self._tell(len(self.tags))


@asynccontextmanager
async def reading(
    broker: Broker,
    queue: str,
    index: Index,
    *,
    keys: Keys | None = None,
    tell: Callable[[int], None] = lambda count: None,
    worn_too: bool = False,
) -> AsyncIterator[Shelf]:
    """The whole queue, in `index` and on a shelf; until this ends no other tool reads it, then it is as it was.

    `keys` name its letters. `tell` is called with the number read so far. Raises `TopologyMissing`, `QueueInUse`,
    `BrokerUnavailable`, and `WornOut` unless `worn_too`.
    """
    if index.returns >= WORN and not worn_too:
        await _check_limit(broker, queue, index.returns)
    shelf = Shelf(index, keys or Keys(), tell)
    shelf.browser = await broker.browse(queue, shelf.receive)
    try:
        with index.rewriting():
            await shelf.browser.caught_up()
            shelf.complete()
        yield shelf
    finally:
        shelf.is_sure = await shelf.browser.close()
    if not shelf.is_sure:
        raise BrokerUnavailable(f"the connection was lost; what was taken off {queue} may be back in it")


async def _check_limit(broker: Broker, queue: str, returns: int) -> None:
    """Raises `WornOut` where the queue was not declared, as Holdfast does, without a delivery limit."""
    try:
        if await broker.count(queue) is not None:
            await broker.declare(Topology(queues=(resting_queue(queue),)))
    except TopologyDrift:
        raise WornOut(
            f"the letters in {queue} have been delivered {returns} times; RabbitMQ 4 drops them after 20 unless the "
            "queue has a delivery limit of its own. Discard them to an archive and import that, or read on with --worn"
        ) from None
