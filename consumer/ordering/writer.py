"""Writing to the ledger: an entry counts once it is confirmed, and in the hand of its owner."""

import asyncio
from typing import Any

from ...events import Incoming, Message
from ...events import headers as h
from ..copies import postponed_copy
from ..errors import OwnershipLost
from ..outcome import DeadLetter, Postpone
from ..settle import publish_copy
from .desk import Desk
from .keys import LETTER, Item
from .ledger import Kind, due_headers, entry_headers, rewritten, stub

_AS_IT_IS = Postpone(0.0, None)


class Writer:
    """Writes the entries of one owner, until it has `lost` the queue. Each method raises `OwnershipLost` then."""

    def __init__(self, desk: Desk, epoch: int, lost: "asyncio.Future[None]") -> None:
        self._desk = desk
        self._epoch = epoch
        self._lost = lost
        self._ledger = desk.ledger
        self._next_position = LETTER + 1
        self._arriving: dict[str, asyncio.Future[None]] = {}

    def note(self, position: int) -> None:
        """Note the highest position in the ledger: later entries come after it."""
        self._next_position = position + 1

    def arrived(self, message: Message) -> None:
        """Note that an entry is in hand."""
        arriving = self._arriving.get(message.message_id or "")
        if arriving is not None and not arriving.done():
            arriving.set_result(None)

    async def park(self, key: str, item: Item, incoming: Incoming) -> None:
        """Write an event, or a stub, as it is."""
        if item.is_stub:
            reason = str(incoming.message.headers.get(h.REASON))
            now, headers = self._desk.tools.clock.now(), self._headers("stub", key, item)
            await self._write(stub(self._ledger, incoming, headers, reason, now), incoming)
            return
        await self._write(self._copy(incoming, _AS_IT_IS, self._headers("parked", key, item), None), incoming)

    async def postpone(self, key: str, item: Item, incoming: Incoming, ending: Postpone, traced: str | None) -> None:
        """Write the next attempt of an event, at the position it has. `traced` is this attempt in its trace."""
        due = due_headers(self._desk.tools.clock.now(), ending.delay)
        await self._write(self._copy(incoming, ending, self._headers("parked", key, item) | due, traced), incoming)

    async def hold(self, key: str, item: Item, incoming: Incoming, ending: DeadLetter) -> None:
        """Write the stub of a dead letter."""
        now, headers = self._desk.tools.clock.now(), self._headers("stub", key, item)
        await self._write(stub(self._ledger, incoming, headers, ending.reason, now), incoming)

    async def rewrite(self, item: Item) -> None:
        """Write an entry anew."""
        copy = rewritten(item.body, item.revision, self._ledger, self._epoch)
        await self._write(copy, self._desk.read(item.body))

    async def _write(self, message: Message, incoming: Incoming) -> None:
        queue, name = self._desk.spec.queue, message.message_id or ""
        if self._lost.done():
            raise OwnershipLost(f"{queue} is another worker's")
        arrived = self._arriving[name] = asyncio.get_running_loop().create_future()
        writing = asyncio.ensure_future(publish_copy(self._desk.tools, queue, incoming.metadata.event_id, message))
        try:
            for waited in (writing, arrived):
                either: set[asyncio.Future[Any]] = {waited, self._lost}
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                if self._lost.done():
                    raise OwnershipLost(f"{queue} is another worker's")
                await waited
        finally:
            writing.cancel()
            self._arriving.pop(name, None)

    def _headers(self, kind: Kind, key: str, item: Item) -> dict[str, Any]:
        position, revision = item.position, item.revision + 1
        if position is None:
            position, self._next_position = self._next_position, self._next_position + 1
        return entry_headers(kind, key=key, epoch=self._epoch, position=position, revision=revision)

    def _copy(self, incoming: Incoming, ending: Postpone, entry: dict[str, Any], traced: str | None) -> Message:
        queue, tools = self._desk.spec.queue, self._desk.tools
        now, budget = tools.clock.now(), tools.broker.header_budget
        return postponed_copy(
            incoming, ending, queue=queue, now=now, budget=budget, traced=traced, entry=entry, to=self._ledger
        )
