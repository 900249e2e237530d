"""Label values: bounded where a sender could invent them, and looked up once each."""

from typing import TypeAlias

from .families import Family
from .sheet import Sheet

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


class Places(dict[Labels, int]):
    """Where in a sheet the figures of each of one family's label values begin, found out once."""

    def __init__(self, sheet: Sheet, family: Family) -> None:
        super().__init__()
        self._sheet = sheet
        self._family = family

    def __missing__(self, labels: Labels) -> int:
        series = (self._family.name, *((labels,) if isinstance(labels, str) else labels))
        self[labels] = place = self._sheet.place(series, self._family.size)
        return place
