"""What holds of the events of one key, where order is promised."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from invariants import Invariant
from ledgers import Entry, Fault
from lives import Life, Lives, Violation

_AWAKE = 0.1  # seconds after which a process that stood still has written the line that it was about to write

UNNOTICED = frozenset(
    {"worker frozen", "half-open connection", "broker frozen", "slow network", "network partition", "node frozen"}
)
"""Faults that take the queue from its owner before the owner knows it."""

MARKS = frozenset({"record", "sentinel", "poke"})


def order(index: Lives) -> list[Violation]:
    """The first effects of a key never go back."""
    violations = list[Violation]()
    for key, lives in _by_key(index):
        firsts = sorted((life for life in lives if life.of("effect")), key=lambda life: life.of("effect")[0].at)
        last = 0
        for life in firsts:
            seq = life.of("effect")[0].seq
            if seq < last:
                violations.append(Violation(Invariant.IN_ORDER, life.event_id, f"{key}: {seq} after {last}"))
            last = max(last, seq)
    return violations


def letters_hold(index: Lives) -> list[Violation]:
    """Nothing of a key takes effect while a dead letter holds it: until that was replayed with success, or skipped."""
    violations = list[Violation]()
    for key, lives in _by_key(index):
        for dead in lives:
            died = [entry for entry in dead.of("settled") if entry.outcome == "dead_lettered"]
            if not died:
                continue
            at, own = died[0].at, dead.of("start")[0].seq if dead.of("start") else 0
            freed = [skip.at for skip in index.book.skipped if (skip.key, skip.queue) == (key, dead.queue)]
            freed += [entry.at for entry in dead.of("effect")]
            until = min((moment for moment in freed if moment > at), default=float("inf"))
            passed = [e for life in lives for e in life.of("effect")[:1] if e.seq > own and at < e.at < until]
            violations += [
                Violation(Invariant.IN_ORDER, e.event_id, f"{key}: {e.seq} took effect while {own} was a dead letter")
                for e in passed
            ]
    return violations


@dataclass(frozen=True, slots=True)
class _Run:
    """One attempt of an event: when it began, and when it ended or its process did."""

    begin: Entry
    end: float


def one_at_a_time(index: Lives) -> list[Violation]:
    """No two attempts of a key overlap, but where a process lost its leases, or had them taken."""
    violations = list[Violation]()
    for key, lives in _by_key(index):
        runs = sorted((run for life in lives for run in _runs(index, life)), key=lambda run: run.begin.at)
        running = list[_Run]()
        for later in runs:
            running = [earlier for earlier in running if later.begin.at < earlier.end]
            for earlier in running:
                if not (_lost_its_claims(index, earlier) or _lost_its_claims(index, later)):
                    text = (
                        f"{key}: {later.begin.seq} began in process {later.begin.pid} "
                        f"while {earlier.begin.seq} ran in {earlier.begin.pid}"
                    )
                    violations.append(Violation(Invariant.ONE_AT_A_TIME, later.begin.event_id, text))
            running.append(later)
    return violations


def fence_rises(index: Lives) -> list[Violation]:
    """What begins has no lower fence than what began before, but in an owner that cannot know yet that it is one no
    more. With several partitions that holds of each key."""
    violations = list[Violation]()
    starts: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for life in index.lives.values():
        if life.queue in index.book.promise.ordered:
            for entry in life.of("start"):
                starts[life.queue, entry.key if index.book.promise.partitions > 1 else ""].append(entry)
    for (queue, _), begun in starts.items():
        highest: Entry | None = None
        for entry in sorted(begun, key=lambda entry: entry.at):
            if highest is None or entry.fence > highest.fence:
                highest = entry
            elif entry.fence < highest.fence and not _is_unnoticed(index, highest.at, entry):
                text = f"{queue}: process {entry.pid} began with fence {entry.fence}, after {highest.fence}"
                violations.append(Violation(Invariant.FENCE_RISES, entry.event_id, text))
    return violations


def ledgers_are_empty(index: Lives) -> list[Violation]:
    """A ledger at rest holds the marks of its owners, and a record among them."""
    violations = list[Violation]()
    for queue, kinds in index.book.ending.in_ledgers.items():
        events = [kind for kind in kinds if kind not in MARKS]
        if events:
            violations.append(Violation(Invariant.LEDGER_EMPTY, queue, f"its ledger holds {', '.join(events)}"))
        if "record" not in kinds:
            violations.append(Violation(Invariant.LEDGER_EMPTY, queue, "its ledger has no record: nobody can own it"))
    return violations


def _by_key(index: Lives) -> Iterator[tuple[str, list[Life]]]:
    keys: dict[tuple[str, str], list[Life]] = defaultdict(list)
    for life in index.lives.values():
        if life.queue in index.book.promise.ordered:
            origin = index.origin(life.event_id)
            noted = [entry.key for entry in life.entries if entry.key]
            keys[life.queue, origin.key if origin else (noted or [""])[0]].append(life)
    for (_, key), lives in keys.items():
        yield key, lives


def _runs(index: Lives, life: Life) -> Iterator[_Run]:
    starts = life.of("start")
    for begin in starts:
        ends = [e.at for e in life.of("done") if e.pid == begin.pid and e.attempt == begin.attempt and e.at >= begin.at]
        yield _Run(begin, min(ends, default=_death(index, begin.pid)))


def _death(index: Lives, pid: int) -> float:
    """The moment at which a process was there no more; it may have written a line after it was killed."""
    killed = [fault.at for fault in index.book.faults if fault.explains == "its process" and fault.pid == pid]
    if not killed:
        return float("inf")
    return max(*killed, *(entry.at for entry in index.book.entries if entry.pid == pid))


def _lost_its_claims(index: Lives, run: _Run) -> bool:
    return any(
        fault.explains in ("what ran", "what was noted")
        and fault.pid in (0, run.begin.pid)
        and fault.at <= run.end
        and run.begin.at <= fault.until + _AWAKE
        for fault in index.book.faults
    )


def _is_unnoticed(index: Lives, since: float, entry: Entry) -> bool:
    """Whether the broker took the queue from this process in a way that it learns of later. `since`: its successor has
    begun."""

    def hides(fault: Fault) -> bool:
        return fault.what in UNNOTICED and fault.pid in (0, entry.pid)

    return any(hides(fault) and fault.at <= since and entry.at <= fault.until + _AWAKE for fault in index.book.faults)
