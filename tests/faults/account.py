"""The checker: from the ledgers of a run to a list of what does not add up. Pure, and itself under test."""

from dataclasses import dataclass

from checks_of_events import exclusive, held_too_long, nothing_invented, nothing_lost, one_outcome
from checks_of_order import fence_rises, ledgers_are_empty, letters_hold, one_at_a_time, order
from checks_of_repeats import attempts, effects
from checks_of_rest import ending, recovery
from invariants import Invariant
from ledgers import Book
from lives import Lives, Repeat, Violation


@dataclass(frozen=True, slots=True)
class Account:
    """What became of every event."""

    events: int
    confirmed: int
    unknown: int
    effects: int
    dead: int
    faults: int
    repeats: tuple[Repeat, ...]
    both: tuple[str, ...]
    recovery: float
    violations: tuple[Violation, ...]

    @property
    def lost(self) -> int:
        return sum(violation.invariant is Invariant.NOTHING_LOST for violation in self.violations)


def account(book: Book) -> Account:
    """Account for every event of a run."""
    index = Lives(book)
    repeats, unexplained = effects(index)
    both, shared = exclusive(index)
    longest, late = recovery(index)
    violations = (
        *nothing_lost(index),
        *shared,
        *nothing_invented(index),
        *unexplained,
        *attempts(index),
        *order(index),
        *letters_hold(index),
        *one_at_a_time(index),
        *fence_rises(index),
        *ledgers_are_empty(index),
        *late,
        *ending(book),
        *held_too_long(index),
        *one_outcome(index),
    )
    return Account(
        events=len(book.sent),
        confirmed=sum(sent.outcome == "confirmed" for sent in book.sent),
        unknown=sum(sent.outcome == "unknown" for sent in book.sent),
        effects=sum(bool(life.of("effect")) for life in index.lives.values()),
        dead=sum(bool(life.letters) for life in index.lives.values()),
        faults=len(book.faults),
        repeats=tuple(repeats),
        both=tuple(both),
        recovery=longest,
        violations=violations,
    )
