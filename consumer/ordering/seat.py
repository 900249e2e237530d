"""A seat: what makes one worker the owner of a queue and its ledger, until it releases or loses them."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeAlias

from ...broker import Attachment, Timer
from ...events import Message
from ..errors import OwnershipLost
from ..settle import publish_copy
from .desk import Desk
from .ledger import Entry, Layout

Came: TypeAlias = tuple[Message, int, bool]
"""A message, its tag, and whether it was delivered before."""

PASSED_ON = "passed on"
"""The reason for which an owner leaves although nothing is wrong: the next one in line has the queue."""

REWRITE = 600.0
"""Seconds after which an entry of the ledger is written anew: RabbitMQ takes a channel away that holds a message for
30 minutes, and keeps the log of a queue from the oldest message in hand on."""


class Seat:
    """The channels, the record and the tasks of one owner. `epoch` is its fence; `lost` is done when it is over.
    `leave` is called with the reason for which it has to end."""

    def __init__(
        self,
        desk: Desk,
        epoch: int,
        layout: Layout,
        queue: Attachment,
        ledger: Attachment,
        *,
        record: int,
        leave: Callable[[str], None],
    ) -> None:
        self.epoch = epoch
        self.leave = leave
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.tasks: set[asyncio.Task[None]] = set()
        self.queue, self.ledger = queue, ledger
        self._desk = desk
        self._layout = layout
        self._record = record
        self._rewriting: Timer | None = None

    @property
    def base(self) -> int:
        """The fence of the last owner before there were partitions."""
        return self._layout.base

    @property
    def is_open(self) -> bool:
        """Whether this worker owns the queue still."""
        return not self.lost.done()

    def end(self) -> None:
        """Start nothing more and settle nothing: the queue is another worker's now, or nobody's."""
        self.lost.set_result(None)
        if self._rewriting is not None:
            self._rewriting.cancel()
        for task in self.tasks:
            task.cancel()
        self._desk.part.clear()

    def pass_mark(self, entry: Entry) -> None:
        """Remove a mark from the ledger. The newest record of this owner stays, and one for the next."""
        if entry.kind == "record" and entry.epoch > self.epoch:
            return
        tag = entry.tag
        if entry.kind == "record" and entry.epoch == self.epoch:
            tag, self._record = self._record, tag
        self.ledger.remove(tag)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do this until the seat is lost. An error of ours ends it."""
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self._done)

    def rewrite_now_and_then(self, rewrite: Callable[[], Awaitable[None]]) -> None:
        """Have what is in the ledger written anew, the record last."""
        clock = self._desk.tools.clock
        self._rewriting = clock.call_at(clock.time() + REWRITE, self._ring, rewrite)

    def _ring(self, rewrite: Callable[[], Awaitable[None]]) -> None:
        self.rewrite_now_and_then(rewrite)
        self._desk.part.moving += 1
        self.spawn(self._rewrite(rewrite))

    async def _rewrite(self, rewrite: Callable[[], Awaitable[None]]) -> None:
        await rewrite()
        self._desk.part.moving -= 1
        await publish_copy(
            self._desk.tools, self._desk.spec.queue, "", self._layout.record(self._desk.ledger, self.epoch)
        )

    def _done(self, task: "asyncio.Task[None]") -> None:
        self.tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, OwnershipLost):
            self.leave(f"a fault of Holdfast itself: {type(error).__name__}: {error}")
