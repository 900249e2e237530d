"""Who caused what: the tree of an event's causes and effects."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from .recorded import Recorded


@dataclass(slots=True)
class Caused:
    """An event with the events that its handlers published."""

    event: Recorded
    effects: list["Caused"] = field(default_factory=list)

    def lines(self) -> Iterator[tuple[int, Recorded]]:
        """Yield this event and each below it, with its depth. A chain may be longer than Python's calls are deep."""
        todo = [(0, self)]
        while todo:
            depth, node = todo.pop()
            yield depth, node.event
            todo += [(depth + 1, effect) for effect in reversed(node.effects)]


def trees(events: Iterable[Recorded]) -> list[Caused]:
    """Return the events as trees, in order; an event whose cause is not among them is a root."""
    nodes = {event.event_id: Caused(event) for event in events}
    roots = list[Caused]()
    for node in nodes.values():
        cause = nodes.get(node.event.metadata.causation_id or "")
        if cause is None or cause is node:
            roots.append(node)
        else:
            cause.effects.append(node)
    return roots
