"""The steps in which a worker becomes the owner of an ordered queue.

    standby   in line for the ledger, which has a single active consumer and is never empty
    chosen    the ledger's first entry came: no other worker is given entries any more
    alone     a poke was sent to the handler's queue, and something came from there: an earlier owner can take nothing
              off it any more, so the copies of all that it took off are confirmed, and lie in the ledger
    reading   a sentinel was sent to the ledger: what comes before it is all that there is
    owner     a record with the highest epoch and one more is confirmed; older ones are removed

A copy of an earlier owner that comes after the sentinel has its original in the handler's queue, or in the ledger, and
is dropped.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from ...broker import Attachment, Broker
from ...events import Message
from ...telemetry import mark_heard
from .backlog import Backlog
from .desk import PREFETCH, Desk
from .intake import Intake
from .ledger import Entry, Layout, mark, read_entry, rewritten
from .seat import PASSED_ON, Came, Seat
from .tenure import Tenure

Owner: TypeAlias = Tenure | Intake

T = TypeVar("T")

_LETTERS = 2_000
"""Replayed letters that a new owner has in hand before it has read its ledger. RabbitMQ lends it 65,535 messages, and
up to 50,000 may be parked."""


class Left(Exception):
    """The worker is to leave the line, or it has lost a channel: `reason` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(slots=True, eq=False)
class Arrivals:
    """What came from a queue before its owner was ready for it."""

    came: deque[Came]
    arrived: asyncio.Event
    receiver: Owner | None = None
    is_ledger: bool = False

    def __call__(self, message: Message, tag: int, redelivered: bool) -> None:
        if self.receiver is None:
            self.came.append((message, tag, redelivered))
            self.arrived.set()
        elif not self.receiver.is_open:
            return  # it goes back with its channel: the mark of the next owner has to
        elif self.is_ledger:
            self.receiver.receive(read_entry(message, tag, redelivered))
        else:
            self.receiver.take(message, tag, redelivered)


class Ownership:
    """One time in line for a queue, and one time as its owner. When it is the next, `admit` is asked whether it may
    have the queue."""

    def __init__(self, desk: Desk, broker: Broker, admit: Callable[[], Awaitable[bool]]) -> None:
        self.owner: Owner | None = None
        self._admit = admit
        self._desk = desk
        self._broker = broker
        self._in_line = mark(desk.ledger, "record")
        self._end: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._ledger: Attachment | None = None
        self._queue: Attachment | None = None
        self._from_ledger = Arrivals(deque(), asyncio.Event(), is_ledger=True)
        self._from_queue = Arrivals(deque(), asyncio.Event())

    @property
    def is_attached(self) -> bool:
        """Whether it is in line, or the owner."""
        return self._ledger is not None and self._ledger.is_open and not self._end.done()

    async def until_over(self) -> str:
        """Return the reason why it is over."""
        return await asyncio.shield(self._end)

    def leave(self, reason: str) -> None:
        """End it. The first reason counts."""
        if not self._end.done():
            self._end.set_result(reason)

    async def join(self) -> None:
        """Get in line for the ledger, which has an entry at least: who is first in line gets one."""
        self._ledger = await self._attach(self._desk.ledger, 0, self._from_ledger)
        await self._publish(self._in_line)

    async def become_owner(self) -> None:
        """Return once this worker owns the queue and knows all that its predecessors had. Raises `Left`."""
        desk, queue, ledger = self._desk, self._desk.queue, self._desk.ledger
        await self._until(self._from_ledger.arrived.wait())
        if not await self._until(self._admit()):
            raise Left(PASSED_ON)
        self._queue = await self._attach(queue, PREFETCH, self._from_queue)
        await self._publish(mark(queue, "poke"))
        await self._until(self._from_queue.arrived.wait())
        backlog, between = Backlog(desk), list[Entry]()
        backlog.add(await self._read_up_to(mark(ledger, "sentinel"), backlog.add))
        layout, epoch = self._layout(backlog.others), backlog.epoch + 1
        own = await self._read_up_to(layout.record(ledger, epoch), between.append)
        if self._queue is None or self._ledger is None:
            raise Left("no channel")
        seat = Seat(desk, epoch, layout, self._queue, self._ledger, record=own.tag, leave=self.leave)
        owner: Owner = Intake(desk, seat) if desk.part.is_intake else Tenure(desk, seat)
        self.owner = self._from_ledger.receiver = self._from_queue.receiver = owner
        owner.begin(backlog, self._from_queue.came)
        for entry in [*between, *(read_entry(*came) for came in self._from_ledger.came)]:
            owner.receive(entry)

    async def close(self) -> None:
        """Leave both queues: what is in hand returns, at once and in order. The handler's queue is left first: the
        next owner asks for it when it has the ledger."""
        self.leave("closed")
        if self.owner is not None:
            self.owner.end_all()
        try:
            if self._queue is not None:
                await self._queue.close()
        finally:
            if self._ledger is not None:
                await self._ledger.close()

    def _layout(self, known: Iterable[Entry]) -> Layout:
        """Raises `Left` where the handler has another number of partitions: its keys would change their owner."""
        layout = self._desk.layout
        try:
            return layout.follows(known)
        except ValueError as error:
            raise Left(
                f"{self._desk.queue} has partitions={error}, and this worker asks for {layout.partitions}; give the "
                "handler another queue= with the new number"
            ) from None

    async def _read_up_to(self, last: Message, take: Callable[[Entry], None]) -> Entry:
        """Publish a mark to the ledger, take all that comes before it, letters last, and return the mark. Marks of no
        owner are removed at once: there may be more of them than RabbitMQ lends."""
        await self._publish(last)
        arrivals, letters = self._from_ledger, list[Entry]()
        while True:
            arrivals.arrived.clear()
            while arrivals.came:
                entry = read_entry(*arrivals.came.popleft())
                if entry.message.message_id == last.message_id:
                    for letter in letters:
                        take(letter)
                    return entry
                if entry.is_of_no_owner and entry.message.message_id != self._in_line.message_id:
                    self._remove(entry)
                    continue
                (letters.append if entry.kind == "letter" else take)(entry)
            if len(letters) > _LETTERS:
                await self._put_behind(letters)
                letters = []
            await self._until(arrivals.arrived.wait())

    async def _put_behind(self, letters: Iterable[Entry]) -> None:
        """Write letters anew, behind the mark, which would not come while so many of them are in hand."""
        copies = [rewritten(letter.message, letter.revision, self._desk.ledger, 0) for letter in letters]
        await self._until(asyncio.gather(*(self._broker.publish(copy, timeout=None) for copy in copies)))
        for letter in letters:
            self._remove(letter)

    def _remove(self, entry: Entry) -> None:
        if self._ledger is not None:
            self._ledger.remove(entry.tag)

    async def _attach(self, queue: str, prefetch: int, into: Arrivals) -> Attachment:
        def lost(reason: str) -> None:
            self.leave(f"{queue}: {reason}")
            if self.owner is not None:  # a worker that leaves waits for what runs, and that for a copy in hand
                self.owner.end_all()

        attaching = asyncio.ensure_future(self._broker.attach(queue, prefetch=prefetch, on_taken=into, on_lost=lost))
        try:
            return await self._until(attaching)
        except Left:
            await asyncio.wait({attaching})
            if not attaching.cancelled() and attaching.exception() is None:  # it came too late
                await attaching.result().close()
            raise

    async def _publish(self, message: Message) -> None:
        await self._until(self._broker.publish(message, timeout=None))

    async def _until(self, doing: Awaitable[T]) -> T:
        """Return what is awaited. Raises `Left` if this is over before."""
        task = asyncio.ensure_future(doing)
        task.add_done_callback(mark_heard)  # `Left` is raised in its place
        try:
            either: set[asyncio.Future[Any]] = {task, self._end}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if self._end.done():
                raise Left(self._end.result())
            return task.result()
        finally:
            task.cancel()
