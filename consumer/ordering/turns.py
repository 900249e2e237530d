"""Turns: the right of one event of a key to run."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...broker import Delivery
from ...events import Reject
from ..context import Context
from ..errors import OwnershipLost
from ..handler import Handler
from ..in_flight import InFlight
from ..outcome import DeadLetter, Postpone
from .keys import Item, KeyLine

if TYPE_CHECKING:
    from .tenure import Tenure


@dataclass(slots=True, eq=False)
class Turn:
    """The consumer of one delivery of an ordered handler: what the pipeline settles goes to the owner. `fence` is the
    epoch of that owner."""

    tenure: "Tenure"
    line: KeyLine
    item: Item
    key: str
    fence: int

    @property
    def attached(self) -> bool:
        """See `broker.Consumer`."""
        return self.tenure.is_open

    def is_current(self, delivery: Delivery) -> bool:
        """See `broker.Consumer`."""
        return self.tenure.is_open

    async def ack(self, delivery: Delivery) -> bool:
        """Take the event off its queue, and let the next of its key run."""
        return self.tenure.end(self)

    async def give_back(self, delivery: Delivery) -> bool:
        """Let the event wait, as the first of its key. Nothing goes back to the queue one by one."""
        return self.tenure.wait(self)

    async def stop(self, *, close: bool) -> None:
        """See `broker.Consumer`: the owner stops, not one of its turns."""


class TurnOrder:
    """See `consumer.settle.Order`: each event waits where the owner whose turn it has keeps it."""

    def key(self, flight: InFlight) -> str:
        """Return the key of an event that is to be dead-lettered. Raises `OwnershipLost`: the next owner runs it."""
        turn = _turn_of(flight)
        if not turn.attached:
            raise OwnershipLost(f"{flight.delivery.queue} is another worker's")
        return turn.key

    async def postpone(self, flight: InFlight, ending: Postpone, traced: str | None) -> None:
        """See `Tenure.postpone`."""
        turn = _turn_of(flight)
        await turn.tenure.postpone(turn, flight, ending, traced)

    async def hold(self, flight: InFlight, ending: DeadLetter) -> None:
        """See `Tenure.hold`."""
        turn = _turn_of(flight)
        await turn.tenure.hold(turn, flight, ending)


def _turn_of(flight: InFlight) -> Turn:
    consumer = flight.delivery.consumer
    if not isinstance(consumer, Turn):
        raise TypeError(f"a delivery of an ordered handler has a turn, not {consumer!r}")
    return consumer


def keyed(handler: Handler) -> Handler:
    """Return a handler that refuses events without a key."""

    async def run(event: Any, context: Context) -> Any:
        if not context.key:
            raise Reject("the handler is ordered, and the key of this event is empty, too long or cannot be had")
        return await handler(event, context)

    return run
