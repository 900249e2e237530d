"""A listener that knows which connections are up and which queues are consumed."""

from . import facts
from .facts import Emit, Fact, Role
from .queue_figures import QueueFigures

_HEARD = frozenset(
    (
        facts.Connected,
        facts.Disconnected,
        facts.PublishingHeld,
        facts.PublishingResumed,
        facts.ConsumerStarted,
        facts.Attached,
        facts.Detached,
        facts.Paused,
        facts.Draining,
    )
)


class Links:
    """`down` names the connections and channels that are not up: a worker without queues consumes none. Of each
    announced queue, `QueueFigures.attached` is kept here."""

    def __init__(self, *, consumes: bool = True) -> None:
        self._roles: tuple[Role, ...] = ("consume", "publish") if consumes else ("publish",)
        self._up: set[Role] = set()
        self._held: dict[str, None] = {}
        self._queues: dict[str, QueueFigures] = {}

    def listener_for(self, kind: type[Fact]) -> Emit | None:
        """Return this listener for facts that change anything here."""
        return self if kind in _HEARD else None

    def __call__(self, fact: Fact) -> None:
        match fact:
            case facts.Connected(role):
                self._up.add(role)
            case facts.Disconnected(role):
                self._up.discard(role)
            case facts.PublishingHeld(target):
                self._held[target] = None
            case facts.PublishingResumed(target):
                self._held.pop(target, None)
            case facts.ConsumerStarted(queue, figures):
                self._queues[queue] = figures
            case facts.Attached(queue) if queue in self._queues:
                self._queues[queue].attached = True
            case facts.Detached(queue) | facts.Paused(queue) if queue in self._queues:
                is_full = isinstance(fact, facts.Paused) and fact.reason == "parked"  # its owner goes on consuming
                self._queues[queue].attached &= is_full
            case facts.Draining():
                for figures in self._queues.values():
                    figures.attached = False
            case _:
                pass

    def down(self) -> tuple[str, ...]:
        """Return the connections that are not up, those that never were included, and what cannot be published to."""
        return (
            *(f"connection to {role}" for role in self._roles if role not in self._up),
            *(f"channel to publish to {target}" for target in tuple(self._held)),
        )
