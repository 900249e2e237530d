"""The faults that a harness makes on request, and the broker and claims through which a worker meets them."""

import asyncio
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import repeat

from ..broker import Attachment, Consumer, Delivery, Offset, OnDelivery, OnLost, OnTaken
from ..broker.memory import MemoryBroker
from ..events import Message
from ..idempotency import Answer, Board, Claim, ClaimStore, Completion, Entry, Lease, Mark
from ..telemetry import Emit


@dataclass(slots=True)
class Faults:
    """`crashes` and `losses` are still to come. With an `order`, deliveries are held, and handed on one by one in the
    order that this luck gives; each that is held sets `changed`. `arrows` say of each step that outlives a crash
    whether the worker dies before it."""

    crashes: int = 0
    losses: int = 0
    order: random.Random | None = None
    arrows: Iterator[bool] = field(default_factory=lambda: repeat(False))
    held: list[tuple[Delivery, OnDelivery]] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def held_of(self, queue: str) -> int:
        """How many deliveries of a queue are held."""
        return sum(delivery.queue == queue and delivery.consumer.is_current(delivery) for delivery, _ in self.held)

    def hand_on(self) -> bool:
        """Hand on one of the deliveries that are held, if there is one."""
        self.held[:] = [(delivery, to) for delivery, to in self.held if delivery.consumer.is_current(delivery)]
        if not self.held:
            return False
        delivery, to = self.held.pop((self.order or random.Random(0)).randrange(len(self.held)))
        to(delivery)
        return True


class Life:
    """One run of a worker, from its start to its end or its crash. Who has crashed does nothing more: what it still
    tries has no effect, what it waits for does not come, and what it says is not heard."""

    broker: MemoryBroker

    def __init__(self, faults: Faults, on_crash: Callable[["Life"], None]) -> None:
        self.faults = faults
        self.has_crashed = False
        self.lease: Lease | None = None
        self._on_crash = on_crash

    async def at_an_arrow(self) -> None:
        """Something is about to be done that outlives a crash."""
        if not self.has_crashed and next(self.faults.arrows, False):
            await self._crash()
        if self.has_crashed:
            await asyncio.Future()

    async def before_the_end(self) -> None:
        """A delivery is about to be completed, or acked: the last moment for a crash or a lost connection."""
        if self.faults.crashes and not self.has_crashed:
            self.faults.crashes -= 1
            await self._crash()
        await self.at_an_arrow()
        if self.faults.losses:
            self.faults.losses -= 1
            self.broker.lose_connection()

    async def _crash(self) -> None:
        self.has_crashed = True
        await self.broker.close()
        self._on_crash(self)


class WatchedBroker(MemoryBroker):
    """A session of a worker's life."""

    def __init__(self, life: Life, url: str, emit: Emit) -> None:
        super().__init__(url, emit=emit)
        self._life = life

    async def publish(self, message: Message, *, timeout: float | None) -> None:
        await self._life.at_an_arrow()
        await super().publish(message, timeout=timeout)

    async def consume(self, queue: str, *, prefetch: int, on_delivery: OnDelivery) -> Consumer:
        faults = self._life.faults

        def take(delivery: Delivery) -> None:
            watched = replace(delivery, consumer=WatchedConsumer(delivery.consumer, self._life))
            if faults.order is None:
                on_delivery(watched)
            else:
                faults.held.append((watched, on_delivery))
                faults.changed.set()

        return await super().consume(queue, prefetch=prefetch, on_delivery=take)

    async def attach(
        self, queue: str, *, prefetch: int, on_taken: OnTaken, on_lost: OnLost, offset: Offset | None = None
    ) -> Attachment:
        attachment = await super().attach(queue, prefetch=prefetch, on_taken=on_taken, on_lost=on_lost, offset=offset)
        return WatchedAttachment(attachment, self._life)


class WatchedAttachment:
    """See `broker.Attachment`."""

    def __init__(self, attachment: Attachment, life: Life) -> None:
        self._attachment = attachment
        self._life = life

    @property
    def is_open(self) -> bool:
        return not self._life.has_crashed and self._attachment.is_open

    def remove(self, tag: int) -> bool:
        life = self._life
        if life.faults.losses and not life.has_crashed:
            life.faults.losses -= 1
            life.broker.lose_connection()
        life.faults.changed.set()
        return self.is_open and self._attachment.remove(tag)

    async def close(self) -> None:
        await self._attachment.close()


class WatchedConsumer:
    """See `broker.Consumer`."""

    def __init__(self, consumer: Consumer, life: Life) -> None:
        self._consumer = consumer
        self._life = life

    @property
    def attached(self) -> bool:
        return self._consumer.attached

    def is_current(self, delivery: Delivery) -> bool:
        return not self._life.has_crashed and self._consumer.is_current(delivery)

    async def ack(self, delivery: Delivery) -> bool:
        await self._life.before_the_end()
        return await self._consumer.ack(delivery)

    async def give_back(self, delivery: Delivery) -> bool:
        return not self._life.has_crashed and await self._consumer.give_back(delivery)

    async def stop(self, *, close: bool) -> None:
        await self._consumer.stop(close=close)


class WatchedClaims:
    """See `idempotency.ClaimStore`. The store outlives a crash."""

    def __init__(self, store: ClaimStore, life: Life) -> None:
        self._store = store
        self._life = life

    async def claim(self, claim: Claim, *, alone: bool = False, max_crashes: int = 3) -> Answer:
        await self._life.at_an_arrow()
        return await self._store.claim(claim, alone=alone, max_crashes=max_crashes)

    async def complete(self, claim: Claim, mark: Mark | None = None) -> Completion:
        await self._life.before_the_end()
        return await self._store.complete(claim, mark)

    async def release(self, claim: Claim, *, forget: bool = False) -> None:
        if not self._life.has_crashed:
            await self._store.release(claim, forget=forget)

    async def close(self) -> None:
        """The harness's memory is closed by nobody."""


class WatchedBoard:
    """See `idempotency.Board`. It outlives a crash."""

    def __init__(self, board: Board, life: Life) -> None:
        self._board = board
        self._life = life

    @property
    def is_beside_claims(self) -> bool:
        return self._board.is_beside_claims

    async def open(self, request: str, entries: Sequence[Entry], *, cause: str | None, life: float) -> None:
        await self._life.at_an_arrow()
        await self._board.open(request, entries, cause=cause, life=life)

    async def mark(self, request: str, entry: Entry, *, life: float) -> None:
        await self._life.at_an_arrow()
        await self._board.mark(request, entry, life=life)

    async def read(self, request: str) -> list[Entry]:
        return await self._board.read(request)

    async def forget(self, request: str | None, queue: str) -> None:
        await self._board.forget(request, queue)

    async def announce(self, queue: str, bindings: str) -> None:
        await self._board.announce(queue, bindings)

    async def listeners(self) -> Mapping[str, str]:
        return await self._board.listeners()
