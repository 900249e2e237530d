"""Carrying an operation through: as often as it takes, from wherever it was, until each of its letters has an outcome.

A pass reads the queue, which lends it every letter and shuts other tools out; then, batch by batch: note what is about
to happen, make it durable (publish confirmed, or archive on disk), note that, take the letters off the queue. Whatever
breaks off in between, the next pass finds out from the queue and the journal where it was. A pass holds the queue a
quarter of an hour at most: RabbitMQ takes deliveries back after half an hour.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path

from ..broker import Broker, Pause
from ..events import BrokerUnavailable, ConfigurationError, HoldfastError, NotConnected, PublishTimeout, QueueInUse
from ..telemetry import cancellations, heed_cancellation
from .actions import Action
from .files import locked
from .index import Index
from .letter import Keys, Letter
from .operations import Item, ItemState, Journal, Kind, Operation
from .reader import Shelf, reading
from .receipts import receiving

BATCH = 100
CANARY = (1, 10)
HOLD = 900.0
_LOOK = 0.25
_BREATH = 0.05
_UNAVAILABLE_PAUSE = Pause(0.25, 30.0, jitter=0.0)
_PASSING = (BrokerUnavailable, NotConnected, PublishTimeout, QueueInUse)


class Stopped(HoldfastError):
    """The operation stops by itself; it can be resumed."""


class Leave(Exception):
    """The operation is to be paused or cancelled."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast and how carefully. `rate` is letters per second; `wait` the seconds without a word after which
    outcomes are not waited for any more; `canary`: 1 letter, then 10, then the rest, each after the outcome of the
    last, unless `wait` is 0; `keep_going`: whatever fails again. Raises `ConfigurationError` for a rate or a wait that
    is none."""

    rate: float | None = None
    canary: bool = True
    wait: float = 60.0
    keep_going: bool = False

    def __post_init__(self) -> None:
        if self.rate is not None and not 0 < self.rate < math.inf:
            raise ConfigurationError(f"rate={self.rate:g} is not a number of letters a second")
        if not 0 <= self.wait < math.inf:
            raise ConfigurationError(f"wait={self.wait:g} is not a number of seconds")


_AFTER: dict[Kind, ItemState] = {"replay": "sent", "edit": "sent", "discard": "removed", "import": "restored"}
"""The state of a letter to which the action has been done."""


@dataclass
class OperationRunner:
    """One operation being carried out by this process. `folder` has its lock; `tell` is called whenever something has
    changed."""

    operation: Operation
    act: Action
    pace: Pace
    broker: Broker
    journal: Journal
    own_index: Callable[[], AbstractContextManager[Index]]
    folder: Path
    tell: Callable[[], None]
    index: Index = field(init=False)

    def __post_init__(self) -> None:
        self.name = self.operation.id
        self.after = _AFTER[self.operation.kind]
        self.awaits_outcomes = self.after == "sent"
        self._progress = asyncio.Event()

    async def run(self) -> Operation:
        """Return when there is nothing more to do or to wait for; the operation says how it ended."""
        listening: AbstractAsyncContextManager[None] = nullcontext()
        if self.awaits_outcomes:
            listening = receiving(self.broker, self.name, self.journal, self._heard)
        with locked(self.folder, self.name), self.own_index() as self.index:
            self.journal.ask(self.name, "run")
            self.journal.change(self.name, "running")
            try:
                async with listening:
                    await self._take_all()
                    await self._outcomes()
                self.journal.change(self.name, "waiting" if self._is_unconfirmed() else "done")
            except Stopped as reason:
                self.journal.change(self.name, "stopped", str(reason))
            except Leave:
                cancelled = self.journal.requested(self.name) == "cancel"
                self.journal.change(self.name, "cancelled" if cancelled else "paused")
            except BaseException:
                self.journal.change(self.name, "paused", "interrupted")
                raise
            finally:
                self.tell()
        return self.journal.operation(self.name)

    def _heard(self) -> None:
        self._progress.set()
        self.tell()

    async def _take_all(self) -> None:
        failures, is_sure, before = 0, self.operation.state == "waiting", cancellations()
        while not is_sure or self.journal.left(self.name):
            self._heed()
            try:
                is_sure = await self._pass()
                failures = 0
            except _PASSING as trouble:
                heed_cancellation(before)
                self.journal.change(self.name, "running", f"waiting: {trouble}")
                self.tell()
                await self._pause(_UNAVAILABLE_PAUSE.seconds(failures, luck=1.0))
                failures, is_sure = failures + 1, False

    async def _pass(self) -> bool:
        """Once through the queue. False where it has to be looked at again, even if nothing is left to do."""
        name = self.name
        until = asyncio.get_running_loop().time() + HOLD
        async with self._holding() as shelf:
            left = self.journal.left(name)
            missing = [item for item in left if item.key not in shelf.tags]
            self.journal.took(name, [item.key for item in missing if item.published], self.after)
            self.journal.gone(name, [item.key for item in missing if not item.published])
            there = [item for item in left if item.key in shelf.tags]
            for batch, is_canary in self._batches(there):
                await self._do(shelf, batch)
                if asyncio.get_running_loop().time() > until:
                    break
                await self._between(batch, is_canary=is_canary)
        return True

    @asynccontextmanager
    async def _holding(self) -> AsyncIterator[Shelf]:
        """The queue, read and cleared. What was taken off it is in doubt until its reader was closed, in this pass or
        a later one."""
        cleared, keys = None, Keys(self.journal.keys(self.name))
        try:
            async with reading(self.broker, self.operation.queue, self.index, keys=keys, worn_too=True) as shelf:
                self.journal.change(self.name, "running")
                await self._clear(shelf)
                cleared = shelf
                yield shelf
        finally:
            if cleared is not None and cleared.is_sure:
                self.journal.settle(self.name)

    async def _clear(self, shelf: Shelf) -> None:
        """Take away what has its outcome and is in the queue all the same: the connection was lost on the way."""
        left, removed = self.journal.left(self.name), self.journal.removed(self.name)
        over = removed.union(item.key for item in left if item.published)
        if keys := [key for key in shelf.tags if key in over]:
            await self._remove(shelf, keys)

    async def _do(self, shelf: Shelf, batch: Sequence[Item]) -> None:
        letters = [letter for item in batch if (letter := self.index.get(item.key)) is not None]
        done, trouble = await self._act(letters)
        await self._remove(shelf, done)
        raise_any(trouble)

    async def _act(self, letters: Sequence[Letter]) -> tuple[list[str], list[HoldfastError]]:
        """Make the outcome of letters durable. Returns the keys of those for which it is, and what went wrong."""
        self.journal.sending(self.name, [letter.key for letter in letters])
        results = await self.act(letters)
        done = [letter.key for letter, error in zip(letters, results, strict=True) if error is None]
        self.journal.published(self.name, done)
        return done, [error for error in results if error is not None]

    async def _remove(self, shelf: Shelf, keys: list[str]) -> None:
        if keys and not await shelf.remove(keys):
            raise BrokerUnavailable("the connection was lost")
        self.journal.took(self.name, keys, self.after)
        self.tell()

    def _batches(self, items: Sequence[Item]) -> Iterator[tuple[Sequence[Item], bool]]:
        """The letters in portions, and whether a portion is one of the first few, with more to come."""
        size = BATCH if self.pace.rate is None else max(1, min(BATCH, round(self.pace.rate / 4)))
        begin, canary = 0, list(CANARY) if self.pace.canary and self.pace.wait and self.awaits_outcomes else []
        while begin < len(items):
            is_canary = bool(canary)
            step = canary.pop(0) if canary else size
            end = begin + step
            yield items[begin:end], is_canary and end < len(items)
            begin = end

    async def _between(self, batch: Sequence[Item], *, is_canary: bool) -> None:
        """After a batch: heed what is requested, keep the rate, and go on only while the failures do not return."""
        self._heed()
        if is_canary:
            keys = [item.key for item in batch]
            self.journal.change(self.name, "running", f"trying the first {len(keys)}")
            await self._outcomes(keys)
            self.journal.change(self.name, "running")
            if "failed" in self.journal.counts(self.name, keys) and not self.pace.keep_going:
                raise Stopped("one of the first few letters came back dead; the rest was left where it is")
            if self._is_unconfirmed(keys) and not self.pace.keep_going:
                raise Stopped(
                    f"no outcome of the first few letters within {self.pace.wait:g} s; is a worker running? "
                    "The rest was left where it is"
                )
        self._judge()
        if self.pace.rate:
            await self._pause(len(batch) / self.pace.rate)

    def _judge(self) -> None:
        if self.pace.keep_going or not self.awaits_outcomes:
            return
        if same := self.journal.same_failures(self.name):
            raise Stopped(f"{same} letter(s) failed with the failure they had been dead-lettered for; it is not fixed")

    async def _outcomes(self, keys: Sequence[str] | None = None) -> None:
        """Return when each of these letters (or all) has its outcome, or there was no word for as long as we wait."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self.pace.wait
        while self._is_unconfirmed(keys) and loop.time() < until:
            if keys is not None:
                self._judge()
            self._heed()
            self._progress.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(min(_LOOK, until - loop.time())):
                    await self._progress.wait()
                until = loop.time() + self.pace.wait
                await asyncio.sleep(_BREATH)  # receipts come in crowds; counting is not for each of them

    def _is_unconfirmed(self, keys: Sequence[str] | None = None) -> bool:
        return not {"sent", "retrying"}.isdisjoint(self.journal.counts(self.name, keys))

    async def _pause(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while (left := until - loop.time()) > 0:
            self._heed()
            await asyncio.sleep(min(_LOOK, left))

    def _heed(self) -> None:
        if self.journal.requested(self.name) != "run":
            raise Leave


def raise_any(trouble: Sequence[HoldfastError]) -> None:
    """What passes is tried again; anything else stops the operation."""
    for error in trouble:
        raise error if isinstance(error, _PASSING) else Stopped(str(error))
