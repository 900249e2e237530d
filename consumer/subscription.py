"""One handler's queue: consumed, or not while a store is unavailable, and left when the worker stops."""

import asyncio
from typing import Any

from ..broker import Broker, Consumer, Delivery
from ..idempotency import Availability
from ..telemetry import ConsumerStarted, Emit, finish
from .handler import HandlerSpec
from .pipeline import Pipeline
from .slots import Lane


class Subscription:
    """A queue, the consumer that takes from it, and the lane in which deliveries wait for a slot. It pauses while one
    of the stores that it needs is unavailable."""

    def __init__(
        self,
        spec: HandlerSpec,
        broker: Broker,
        pipeline: Pipeline,
        lane: Lane,
        *,
        prefetch: int,
        needs: tuple[Availability, ...],
        emit: Emit,
    ) -> None:
        self.spec = spec
        self.pipeline = pipeline
        self.needs = needs
        self.consumer: Consumer | None = None
        self._broker = broker
        self._lane = lane
        self._prefetch = prefetch
        self._figures = pipeline.figures
        self._earlier: list[Consumer] = []  # stopped, and kept for the deliveries that still run
        self._closing: set[asyncio.Future[Any]] = set()
        emit(ConsumerStarted(spec.queue, self._figures))

    @property
    def is_idle(self) -> bool:
        """Whether nothing is consumed, nor about to be."""
        return self.consumer is None

    @property
    def is_attached(self) -> bool:
        """Whether the broker delivers now."""
        return self.consumer is not None and self.consumer.attached

    @property
    def waits_for(self) -> Availability | None:
        """The store that it has to wait for now."""
        return next((store for store in self.needs if store.error is not None), None)

    async def attach(self) -> None:
        """Consume the queue."""
        self._lane.resume()
        self.consumer = await self._broker.consume(self.spec.queue, prefetch=self._prefetch, on_delivery=self._receive)
        self._close_unused()

    async def detach(self) -> None:
        """Stop consuming. Deliveries that wait are given back once; those that run are settled where they came from."""
        waiting = self._lane.pause()
        leaving, self.consumer = self.consumer, None
        await finish(self._leave(leaving, waiting))  # cut off, it would end the channel of those that run

    async def _leave(self, leaving: Consumer | None, waiting: list[Delivery]) -> None:
        if leaving is not None:
            self._earlier.append(leaving)
            await leaving.stop(close=False)
        for delivery in [*waiting, *self._lane.pause()]:
            await delivery.consumer.give_back(delivery)

    async def close(self) -> None:
        """Leave the queue for good: deliveries that are still unsettled go back."""
        await self.detach()
        leaving, self._earlier = self._earlier, []
        await asyncio.gather(*(consumer.stop(close=True) for consumer in leaving), *self._closing)
        await self.pipeline.close()

    def _receive(self, delivery: Delivery) -> None:
        self._figures.received += 1
        if delivery.redelivered and self.pipeline.join(delivery):
            return
        lane = self._lane
        if lane.deliveries and lane.deliveries[0].generation != delivery.generation:
            lane.drop_stale()
        lane.offer(delivery)

    def _close_unused(self) -> None:
        """Close earlier consumers that have no delivery in flight; every outage of the claim store leaves one."""
        needed = {flight.delivery.consumer for flight in self.pipeline.in_flight.values()}
        for consumer in self._earlier:
            if consumer not in needed:
                closing = asyncio.ensure_future(consumer.stop(close=True))
                self._closing.add(closing)
                closing.add_done_callback(self._closing.discard)
        self._earlier = [consumer for consumer in self._earlier if consumer in needed]
