"""The queues of an ordered handler as its worker consumes them."""

import asyncio

from ...broker import Broker, members_queue, partition_queues
from ...config import Settings
from ...idempotency import Availability
from ...telemetry import ConsumerStarted, PartitionFigures, keep_running
from ..dependencies import Tools
from ..handler import HandlerSpec
from ..pipeline import Pipeline
from ..slots import Lane
from .desk import Desk
from .ordered import Ordered
from .partition import Partition
from .share import Share


class Partitions:
    """See `consumer.subscription.Subscription`: the same for an ordered handler. With one partition the handler's queue
    is that; with more, events enter its queue, and its owner hands them on."""

    def __init__(
        self,
        spec: HandlerSpec,
        ordered: Ordered,
        broker: Broker,
        pipeline: Pipeline,
        lane: Lane,
        settings: Settings,
        tools: Tools,
        needs: tuple[Availability, ...],
    ) -> None:
        self.spec = spec
        self.pipeline = pipeline
        self.needs = needs
        self._tools = tools
        self._share = Share(broker, members_queue(spec.queue, ordered.partitions), ordered.partitions)
        self._balancing: asyncio.Task[None] | None = None
        self._is_shared = ordered.partitions > 1
        figures = pipeline.figures
        parts = [PartitionFigures(name) for name in partition_queues(spec.queue, ordered.partitions)]
        intake = [PartitionFigures(spec.queue, is_intake=True)] if self._is_shared else []
        figures.partitions = (*intake, *parts)

        def partition(part: PartitionFigures) -> Partition:
            desk = Desk(spec, ordered, settings, tools, lane, pipeline.join, figures, part)
            shared = self._is_shared and not part.is_intake
            admit, forget = (self._share.admit, self._share.forget) if shared else (_always, _nothing)
            return Partition(desk, broker, pipeline, admit, forget)

        self.partitions = tuple(map(partition, figures.partitions))
        tools.emit(ConsumerStarted(spec.queue, figures))

    @property
    def is_idle(self) -> bool:
        """Whether nothing is consumed, nor about to be."""
        return all(partition.is_idle for partition in self.partitions)

    @property
    def is_attached(self) -> bool:
        """Whether it is in line for each queue, or the owner."""
        return all(partition.is_attached for partition in self.partitions)

    @property
    def waits_for(self) -> Availability | None:
        """The store that it has to wait for now."""
        return next((store for store in self.needs if store.error is not None), None)

    async def attach(self) -> None:
        """Get in line."""
        for partition in self.partitions:
            await partition.attach()
        if self._is_shared and self._balancing is None:
            lasting = keep_running("consumer", self._share.balance, self._tools.emit)
            self._balancing = asyncio.create_task(lasting, name=f"holdfast share of {self.spec.queue}")

    async def detach(self) -> None:
        """Start nothing more, and leave once what runs has ended."""
        balancing, self._balancing = self._balancing, None
        if balancing is not None:
            balancing.cancel()
            await asyncio.gather(balancing, return_exceptions=True)
        for partition in self.partitions:
            await partition.detach()

    async def close(self) -> None:
        """Leave for good, now."""
        await self.detach()
        await asyncio.gather(*(partition.close() for partition in self.partitions))
        await self.pipeline.close()


async def _always(partition: Partition) -> bool:
    return True


def _nothing(partition: Partition) -> None:
    """Do nothing: there is no share to forget it from."""
