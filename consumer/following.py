"""Followed requests, as their events are handled: what an event causes is open before it is handled itself."""

from asyncio import CancelledError
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from ..broker import Clock
from ..events import Headers, Metadata
from ..events import headers as h
from ..idempotency import Boards, Completed, Entry, Step
from .outcome import Ack, DeadLetter, Ending, Postpone

if TYPE_CHECKING:
    from .in_flight import InFlight, Run
    from .run import Ran
    from .settle import Settler

_LONGEST: Final = 255  # characters of the name of a request, which is the id of an event


class Follower:
    """Keeps on their boards what becomes of one handler's events. Without `boards` it does nothing.

    `opens_always`: the board is asked before an event is handled, also where it published nothing, since it may come to
    be completed and not marked.
    """

    def __init__(self, boards: Boards | None, queue: str, clock: Clock) -> None:
        self.opens_always = boards is not None and not boards.is_beside_claims
        self._boards = boards
        self._queue = queue
        self._clock = clock

    async def open(self, run: "Run", events: Iterable[tuple[Metadata, float | None]]) -> None:
        """Put on the board what a handler is about to publish, each event with its delay."""
        boards, request, events = self._boards, _request_of(run.carried), list(events)
        if boards is None or request is None:
            return
        is_open = await boards.open(request, events, self._entry(run.incoming.metadata))
        run.handled_as = "lost" if not is_open else "completed" if events else "handled"

    async def make_durable(
        self, settler: "Settler", flight: "InFlight", ran: "Ran", ending: Ending
    ) -> Completed | None:
        """Do what `settler` does, and note it: a retry before it, since it may run at once; a completion with it, where
        the store can; all else after it."""
        incoming = flight.incoming
        boards, request, metadata = self._boards, _request_of(incoming.message.headers), incoming.metadata
        if boards is None or request is None:
            return await settler.make_durable(flight, ending)
        if isinstance(ending, Postpone) and ending.error is not None:
            attempt, at = str(incoming.history.attempt + 1), self._clock.now().timestamp() + ending.delay
            await boards.mark(request, self._entry(metadata, "retrying", attempt, at), delay=ending.delay)
        step = self._step_after(flight, ran, ending)
        if step is None:
            return await settler.make_durable(flight, ending)
        entry = self._entry(metadata, step, ending.reason if isinstance(ending, DeadLetter) else "")
        is_with_claim = boards.is_beside_claims and flight.claimed.claim is not None and isinstance(ending, Ack)
        completion = await settler.make_durable(flight, ending, (request, entry) if is_with_claim else None)
        if completion == "unrecorded":  # it may run again until it is
            boards.mark_later(request, entry)
        elif completion != "fenced" and not is_with_claim:  # fenced: another worker handles it
            with suppress(CancelledError):  # what is durable stays so, and the step is on its way
                await boards.mark(request, entry)
        return completion

    def _step_after(self, flight: "InFlight", ran: "Ran", ending: Ending) -> Step | None:
        """Return the step that an ending is. A message that came again, and was settled here before, takes none."""
        match ending:
            case Ack("handled"):
                run = flight.run
                if run is None:
                    return "lost"
                opened_nothing = run.events is None and not run.followed and not self.opens_always
                return "handled" if opened_nothing else run.handled_as
            case Ack() if ran.runs or flight.claimed.result == "duplicate":
                return "completed"
            case DeadLetter():
                return "failed"
            case _:
                return None

    def _entry(self, metadata: Metadata, step: Step = "open", detail: str = "", at: float | None = None) -> Entry:
        cause = (metadata.caused_by or "", metadata.causation_id or "")
        return Entry(self._queue, metadata.event_id, metadata.event_type, step, detail, at, cause)


def _request_of(headers: Headers) -> str | None:
    request = headers.get(h.FOLLOW)
    return request if isinstance(request, str) and 0 < len(request) <= _LONGEST else None
