"""The sequencer: it gives positions to events that are committed. A reader that remembers the last one misses no event.

A number that is taken inside a transaction is no such order: a transaction with a lower one may commit later, and a
reader that remembers the highest number misses it.
"""

from ..sql import CHUNK, Kept, Steps


class Sequencer:
    """Gives positions from 1 on, without gaps. Of all relays, one at a time does, by the lock of a row.

    Only events above the `floor` are looked at. It rises to the highest number of an earlier look once all transactions
    have ended that were writing then: none can bring a lower number. A long transaction widens the search and delays
    no other event.
    """

    def __init__(self, statements: Kept) -> None:
        self.fresh = 0
        """How many positions were given last."""
        self._statements = statements
        self._above = 1  # about how many events with positions are above the floor
        self._highest = 0
        self._writing: set[str] | None = None

    def steps(self) -> Steps[None]:
        """Give positions to at most `CHUNK` events."""
        is_due, statements = self._above > (CHUNK if self.fresh else 0), self._statements
        self.fresh = 0
        if not (yield statements.sequencer, {}):
            return
        floor = (yield from self._look()) if is_due else None
        self.fresh = len((yield statements.sequence, {}))
        if self.fresh:
            self._above += self.fresh
            yield statements.enqueue, {}
            yield statements.advance, {}
        if floor is not None and self.fresh < CHUNK:  # all that could be seen have positions
            yield statements.raise_floor, {"seq": str(floor)}
            self._above = self._highest - floor

    def _look(self) -> Steps[int | None]:
        """Return the number that the floor may rise to, if any. The transactions that write are noted."""
        [(highest, writing)] = yield self._statements.writers, {}
        before, now = self._writing, set(writing.split())
        if before is not None and before & now:
            return None
        floor = self._highest if before is not None else None
        self._highest, self._writing = highest, now
        return floor
