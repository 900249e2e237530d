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
    """What takes one step back.

    Attributes:
        event: The event that takes it back.
        until: The event that says it is done; None where nothing is awaited.
        limit: Seconds in which that event has to come.
        is_sent: Whether it is published, and its answer awaited.
        event_id: The id under which it is published.
    """

    event: Event
    until: type[Event] | None = None
    limit: float = 3600.0
    is_sent: bool = False
    event_id: str | None = None


@dataclass(slots=True)
class Step:
    """One step of a saga. A method says by it what is to happen with the commit.

    Attributes:
        session: The session of the transaction, in which a method may look something up. None in a test without one.
        undoable: The events of the class's `undo=`, each with its answer.
        sent: The events to be published, each with its delay in seconds.
        undos: What is to be kept to take this step back.
        reason: Why the saga compensates; None where it does not.
        chosen: The stage that was chosen by `goto`.
    """

    session: Any = None
    undoable: Mapping[type[Event], type[Event] | None] = field(default_factory=dict, repr=False)
    sent: list[tuple[Event, float | None]] = field(default_factory=list)
    undos: list[Undo] = field(default_factory=list)
    reason: str | None = None
    chosen: "Stage | None" = None

    def publish(self, event: Event, *, delay: float | None = None) -> None:
        """Publish an event with the commit of this step.

        Args:
            event: The event.
            delay: Seconds until it is delivered.
        """
        self.sent.append((event, delay))

    def undo_by(self, event: Event, *, until: type[Event] | None = None, limit: timedelta = _AN_HOUR) -> None:
        """Keep an event that takes this step back; it is published if the saga compensates.

        Args:
            event: The event. The class names its type in `undo=`.
            until: The event that answers it, as `undo=` says. It may be left out.
            limit: How long the saga waits for the answer. Then it is stuck.

        Raises:
            SagaError: `undo=` does not have the event, or has another answer for it.
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
        """Take everything back, the last step first.

        Args:
            reason: Why: it is shown, logged and kept.
        """
        self.reason = reason

    def goto(self, stage: "Stage") -> None:
        """Choose one of the stages that the transition may lead to.

        Args:
            stage: The stage, which `to=` names.
        """
        self.chosen = stage
