"""The desk: values and tools that every owner of a handler's queue works with."""

from collections.abc import Callable
from dataclasses import dataclass

from ...broker import Delivery
from ...config import Settings
from ...events import Incoming, Message, read_incoming
from ...telemetry import QueueFigures
from ..dependencies import Tools
from ..handler import HandlerSpec
from ..slots import Lane
from .ordered import Ordered

PREFETCH = 200
"""Messages of the handler's queue that an owner has in hand, the same for every owner: one with a smaller number would
take a part of what its predecessor had, and return it behind the rest."""


@dataclass(frozen=True, slots=True)
class Desk:
    """The values that all tenures of this worker share. `join` gives a redelivery to the delivery in
    flight whose position it takes."""

    spec: HandlerSpec
    ordered: Ordered
    settings: Settings
    tools: Tools
    lane: Lane
    join: Callable[[Delivery], bool]
    figures: QueueFigures

    def read(self, message: Message) -> Incoming:
        """Return what the headers of a message say."""
        return read_incoming(message, self.tools.clock.now(), self.settings.worker.names)
