"""The desk: values and tools that every owner of a handler's queue works with."""

from collections.abc import Callable
from dataclasses import dataclass

from ...broker import Delivery, ledger_queue
from ...config import Settings
from ...events import Incoming, Message, read_incoming
from ...telemetry import PartitionFigures, QueueFigures
from ..dependencies import Tools
from ..handler import HandlerSpec
from ..slots import Lane
from .ledger import Layout
from .ordered import Ordered

PREFETCH = 200
"""Messages of the handler's queue that an owner has in hand, the same for every owner: one with a smaller number would
take a part of what its predecessor had, and return it behind the rest."""


@dataclass(frozen=True, slots=True)
class Desk:
    """The values that all owners of one queue in this worker share. `queue` is that of the handler, or one of its
    partitions, and `part` has its figures. `join` gives a redelivery to the delivery in flight whose position it
    takes."""

    spec: HandlerSpec
    ordered: Ordered
    settings: Settings
    tools: Tools
    lane: Lane
    join: Callable[[Delivery], bool]
    figures: QueueFigures
    part: PartitionFigures

    @property
    def queue(self) -> str:
        """The queue whose owner works here."""
        return self.part.queue

    @property
    def ledger(self) -> str:
        """The ledger next to it."""
        return ledger_queue(self.queue)

    @property
    def is_own(self) -> bool:
        """Whether it is the handler's own queue, which events enter."""
        return self.queue == self.spec.queue

    @property
    def layout(self) -> Layout:
        """What the record of the owner says of partitions."""
        return Layout(self.ordered.partitions) if self.is_own else Layout()

    def read(self, message: Message) -> Incoming:
        """Return what the headers of a message say."""
        return read_incoming(message, self.tools.clock.now(), self.settings.worker.names)
