"""Looking for the traces of events: in the inbox, the claims, the dead letters, and the bindings of the broker."""

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ..broker import Management, ManagementUnavailable, dead_letter_queue, matches
from ..config import Settings
from ..consumer import HandlerSpec
from ..dead_letters import DeadLetters, Selection, WornOut
from ..events import BrokerUnavailable, ConfigurationError, QueueInUse
from ..idempotency import ClaimState, StoreUnavailable, claim_key, claim_states, identity_digest
from ..sql import Database, History, Steps
from .outcomes import Pair, Traces
from .recorded import Recorded, recorded_of

_MOST = 10_000  # events of one tree


@dataclass(frozen=True, slots=True)
class Evidence:
    """Where traces are looked for. Without `letters` the broker is not asked, and `why_not` says why. `handlers` are
    those of a worker that was named: its queues listen too."""

    database: Database[Any]
    settings: Settings
    letters: DeadLetters | None = None
    handlers: tuple[HandlerSpec, ...] = ()
    why_not: str = ""

    async def family(self, event_id: str) -> list[Recorded]:
        """Return the events that have their first cause in common with one, in order; none if it is not kept."""
        history = self._history

        def read() -> Steps[list[Any]]:
            return (yield history.select(history.correlated), {"event_id": event_id, "most": _MOST})

        return [recorded_of(row) for row in await self.database.run(read())]

    async def traces(self, events: Sequence[Recorded]) -> Traces:
        """Return all that is known of how listeners ended with these events."""
        unread = list[str]()
        listeners = await self._listeners(unread)
        queues = {queue for event in events for queue in listeners(event.metadata.event_type)}
        queues |= {event.metadata.caused_by for event in events if event.metadata.caused_by}
        letters = await self._dead(queues, events, unread)
        claims = await self._claims(queues, events, unread)
        inbox, unsent = await self.database.run(self._rows(queues, events))
        return Traces(listeners, inbox, claims, letters, unsent, tuple(unread))

    @property
    def _history(self) -> History:
        return self.database.history(self.settings.sql.schema)

    async def _listeners(self, unread: list[str]) -> Callable[[str], set[str]]:
        patterns = [(pattern, spec.queue) for spec in self.handlers for pattern in spec.events]
        broker = self.settings.broker
        if self.letters is not None:
            try:
                for row in await Management(broker).bindings():
                    is_queue = row.get("destination_type") == "queue" and row.get("destination") != broker.stream
                    if is_queue and row.get("source") == broker.exchange:
                        patterns.append((str(row["routing_key"]), str(row["destination"])))
            except ManagementUnavailable as error:
                unread.append(f"bindings, so that listeners without a trace are not listed ({error})")
        return lambda event_type: {queue for pattern, queue in patterns if matches(pattern, event_type)}

    async def _dead(self, queues: Iterable[str], events: Sequence[Recorded], unread: list[str]) -> dict[Pair, str]:
        """Return the reasons of the dead letters of these events. Queues with many letters are not read anew."""
        if self.letters is None:
            unread.append(f"dead letters and bindings ({self.why_not})")
            return {}
        service, reasons = self.letters, dict[Pair, str]()
        ids = Selection(id=tuple(event.event_id for event in events))
        try:
            for queue in sorted(queues):
                dead = dead_letter_queue(queue)
                depth = await service.broker.count(dead)
                if depth is None or not (depth.ready or depth.consumers):
                    continue
                with suppress(QueueInUse, WornOut):
                    await service.look(dead, depth)
                if service.index(dead).count() != depth.ready:
                    unread.append(f"some letters of {dead} (`holdfast dead list {dead}` reads them)")
                reasons |= {(queue, letter.event_id): letter.reason for letter in service.index(dead).letters(ids)}
        except BrokerUnavailable as error:
            unread.append(f"dead letters ({error})")
        return reasons

    async def _claims(
        self, queues: Iterable[str], events: Sequence[Recorded], unread: list[str]
    ) -> dict[Pair, ClaimState]:
        prefix = self.settings.idempotency.prefix
        keys = {
            claim_key(prefix, queue, event.metadata.source, event.event_id): (queue, event.event_id)
            for queue in queues
            for event in events
        }
        try:
            states = await claim_states(self.settings, list(keys))
        except (StoreUnavailable, ConfigurationError) as error:
            unread.append(f"claims ({error})")
            return {}
        return {keys[key]: state for key, state in states.items()}

    def _rows(self, queues: Iterable[str], events: Sequence[Recorded]) -> Steps[tuple[set[Pair], set[str]]]:
        """Return the queues and events of inbox rows, and the ids of events that are not sent."""
        digests = {identity_digest(event.metadata.source, event.event_id).hex(): event.event_id for event in events}
        given = {"queues": json.dumps(sorted(queues)), "events": json.dumps(list(digests))}
        rows = yield self._history.inbox_rows, given
        inbox = {(str(queue), digests[str(digest)]) for queue, digest in rows}
        ids = json.dumps([event.event_id for event in events])
        unsent = yield self._history.unsent_of, {"ids": ids}
        return inbox, {str(row[0]) for row in unsent}
