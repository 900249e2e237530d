"""Who caused what: the tree of an event's causes and effects."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from .recorded import Recorded


@dataclass(slots=True)
class Caused:
    """An event with the events that its handlers published."""

    event: Recorded
    effects: list["Caused"] = field(default_factory=list)

    def lines(self, depth: int = 0) -> Iterator[tuple[int, Recorded]]:
        """Yield each event below this one, and this one first, with its depth."""
        yield depth, self.event
        for effect in self.effects:
            yield from effect.lines(depth + 1)


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
