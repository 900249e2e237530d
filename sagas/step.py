"""`Step`: how a method of a saga says what is to happen. Nothing of it happens before the commit."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from ..events import Event
from .errors import SagaError

if TYPE_CHECKING:
    from .stages import Stage

_AN_HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Undo:
    """What takes one step back: an event, the event that says it is done, and the seconds that may take.

    `is_sent` once it is published and awaited, under `event_id`.
    """

    event: Event
    until: type[Event] | None = None
    limit: float = 3600.0
    is_sent: bool = False
    event_id: str | None = None


@dataclass(slots=True)
class Step:
    """One step of a saga. `session` is that of the transaction, in which a method may look something up."""

    session: Any = None
    undoable: Mapping[type[Event], type[Event] | None] = field(default_factory=dict, repr=False)
    sent: list[tuple[Event, float | None]] = field(default_factory=list)
    undos: list[Undo] = field(default_factory=list)
    reason: str | None = None
    chosen: "Stage | None" = None

    def publish(self, event: Event, *, delay: float | None = None) -> None:
        """Publish an event with the commit of this step. `delay` is in seconds."""
        self.sent.append((event, delay))

    def undo_by(self, event: Event, *, until: type[Event] | None = None, limit: timedelta = _AN_HOUR) -> None:
        """Keep an event that takes this step back; it is published if the saga compensates.

        The class says by `undo=` what it is answered by, which `until` may repeat. Without the answer within `limit`
        the saga is stuck. Raises `SagaError` for an event that `undo=` does not have.
        """
        kind = type(event)
        if kind not in self.undoable:
            raise SagaError(f"undo_by({kind.__name__}): the class has no undo={{{kind.__name__}: ...}}")
        declared = self.undoable[kind]
        if until is not None and until is not declared:
            answer = "nothing" if declared is None else declared.__name__
            raise SagaError(f"undo_by({kind.__name__}, until={until.__name__}): undo= says {answer}")
        self.undos.append(Undo(event, declared, limit.total_seconds()))

    def compensate(self, reason: str) -> None:
        """Take everything back, the last step first. `reason` says why."""
        self.reason = reason

    def goto(self, stage: "Stage") -> None:
        """Choose one of the stages that the transition may lead to."""
        self.chosen = stage
