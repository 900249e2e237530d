"""Rehearsals: what would become of letters if they were replayed now. Nothing on the broker is touched."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

from ..events import HoldfastError
from .letter import Letter
from .replay import Edit

Reader: TypeAlias = Callable[[Letter, Edit | None], None]
"""Reads a letter, edited or not, as its handler would. Raises a `HoldfastError` where that fails."""

ReaderOf: TypeAlias = Callable[[str, str | None], Reader]
"""The `Reader` of the letters of a dead-letter queue, or of those that are to go to another queue."""


@dataclass(slots=True)
class Unread:
    """Letters that cannot be read, all for the same reason; `examples` are keys of some."""

    error: str
    count: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Forecast:
    """How many letters would be read now, and why the others would not, the most frequent reason first."""

    readable: int
    findings: tuple[Unread, ...]

    @property
    def unreadable(self) -> int:
        return sum(finding.count for finding in self.findings)


@dataclass(slots=True)
class Rehearsal:
    """How runs of a handler ended, and how many events of which type would have been published."""

    handled: int = 0
    failed: int = 0
    errors: list[str] = field(default_factory=list)
    published: dict[str, int] = field(default_factory=dict)


def forecast(letters: Iterable[Letter], read: Reader) -> Forecast:
    readable, findings = 0, dict[str, Unread]()
    for letter in letters:
        try:
            read(letter, None)
        except HoldfastError as error:
            text = f"{type(error).__name__}: {error}"
            finding = findings.setdefault(text, Unread(text))
            finding.count += 1
            if len(finding.examples) < 5:
                finding.examples.append(letter.key)
        else:
            readable += 1
    return Forecast(readable, tuple(sorted(findings.values(), key=lambda finding: -finding.count)))
