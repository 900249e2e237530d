"""What would become of letters if they were replayed now: read against today's models, without touching them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ..events import HoldfastError
from .letter import Letter

Read = Callable[[Letter], object]
"""Reads a letter as its handler would. Raises a `HoldfastError` where that fails."""


@dataclass(slots=True)
class Finding:
    """Letters that would fail alike."""

    error: str
    count: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Forecast:
    """How many letters would decode now, and what is wrong with the others."""

    readable: int
    findings: tuple[Finding, ...]

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


def forecast(letters: Iterable[Letter], read: Read) -> Forecast:
    """Try to read each letter."""
    readable, findings = 0, dict[str, Finding]()
    for letter in letters:
        try:
            read(letter)
        except HoldfastError as error:
            text = f"{type(error).__name__}: {error}"
            finding = findings.setdefault(text, Finding(text))
            finding.count += 1
            if len(finding.examples) < 5:
                finding.examples.append(letter.key)
        else:
            readable += 1
    return Forecast(readable, tuple(sorted(findings.values(), key=lambda finding: -finding.count)))
