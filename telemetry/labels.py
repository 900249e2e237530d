"""Label values: bounded where a sender could invent them, and looked up once each."""

from typing import TypeAlias

from .families import Family
from .shared_figures import SharedFigures

OTHER = "other"
_MOST_NAMES = 100

Labels: TypeAlias = str | tuple[str, ...]
"""One label value, or several, or none."""


class Names:
    """A set of label values with a limit: the first hundred, and `other` for the rest."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def bounded(self, name: str) -> str:
        name = name[:100]
        if name not in self._known:
            if len(self._known) >= _MOST_NAMES:
                return OTHER
            self._known.add(name)
        return name


class Offsets(dict[Labels, int]):
    """Where in a block the figures begin of each of one family's label values, looked up once."""

    def __init__(self, figures: SharedFigures, family: Family) -> None:
        super().__init__()
        self._figures = figures
        self._family = family

    def __missing__(self, labels: Labels) -> int:
        series = (self._family.name, *((labels,) if isinstance(labels, str) else labels))
        self[labels] = offset = self._figures.offset(series, self._family.size)
        return offset
