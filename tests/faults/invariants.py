"""What holds of every run, whatever is broken."""

from enum import Enum


class Invariant(Enum):
    """A promise that the account of a run holds Holdfast to. The value is its code in result files."""

    NOTHING_LOST = "I1", "what is confirmed takes effect or becomes a dead letter"
    EXCLUSIVE = "I2", "an event takes effect or becomes a dead letter, not both"
    NOTHING_INVENTED = "I3", "what takes effect was sent, and published once for its cause"
    EFFECT_ONCE = "I4", "an effect comes again only where a fault explains it"
    ATTEMPTS_BOUNDED = "I5", "an event runs no more often than its policy and the faults allow"
    IN_ORDER = "I6", "where order is promised, the events of a key take effect in it"
    RECOVERS = "I7", "once the faults are healed, every event comes to its end in time and nothing is left behind"
    NO_CLAIM_STUCK = "I8", "no claim outlives its worker, or the copy that a retry publishes"
    NOTHING_LEAKS = "I9", "a worker holds no more after the faults than before them"
    ADDS_UP = "I10", "effects, dead letters, metrics and log agree on each outcome"
    ONE_AT_A_TIME = "I11", "where order is promised, no two attempts of a key overlap"
    FENCE_RISES = "I12", "each owner of an ordered queue has a higher fence than the ones before"
    LEDGER_EMPTY = "I13", "at rest, a ledger holds the record of its owner alone"

    sentence: str

    def __new__(cls, code: str, sentence: str) -> "Invariant":
        member = object.__new__(cls)
        member._value_ = code
        member.sentence = sentence
        return member

    def __str__(self) -> str:
        return f"{self.name} ({self.sentence})"

    __repr__ = __str__
