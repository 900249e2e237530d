"""What was done again, and the fault that says why."""

from collections import Counter
from itertools import pairwise

from invariants import Invariant
from ledgers import Entry, Fault
from lives import Life, Lives, Repeat, Violation

_AWAKE = 0.1  # seconds after which a process that stood still has written the line that it was about to write


def effects(index: Lives) -> tuple[list[Repeat], list[Violation]]:
    """An effect comes again only where a fault says why, and seldom."""
    repeats, violations = list[Repeat](), list[Violation]()
    for life in index.lives.values():
        for first, again in pairwise(life.of("effect")):
            fault = next((fault for fault in index.book.faults if _explains(index, fault, first, again, life)), None)
            if fault is None:
                text = f"took effect in {life.queue} in process {first.pid} and again in {again.pid}"
                violations.append(Violation(Invariant.EFFECT_ONCE, life.event_id, text))
            else:
                repeats.append(Repeat(life.event_id, life.queue, fault.what))
    single = sum(fault.explains == "its process" for fault in index.book.faults)
    most = single * index.book.promise.concurrency
    if all(fault.explains in ("nothing", "its process") for fault in index.book.faults) and len(repeats) > most:
        violations.append(
            Violation(Invariant.EFFECT_ONCE, "all", f"{len(repeats)} repeats; the faults account for {most} at most")
        )
    return repeats, violations


def _explains(index: Lives, fault: Fault, first: Entry, again: Entry, life: Life) -> bool:
    match fault.explains:
        case "nothing":
            return False
        case "its process":
            hit = fault.pid == first.pid and first.at <= fault.until and fault.at <= again.at
            return hit and not _was_over(index, fault, first, life)
        case "what ran":
            return _had_begun(fault, first, life) and fault.at <= again.at and not _was_over(index, fault, first, life)
        case "what was noted":
            return _had_begun(fault, first, life) and fault.at <= again.at


def _had_begun(fault: Fault, first: Entry, life: Life) -> bool:
    """Whether the run with this effect began before the fault was over."""
    runs = (run.at for run in life.of("start") if run.pid == first.pid and run.at <= first.at)
    return max(runs, default=first.at) <= fault.until + _AWAKE


def _was_over(index: Lives, fault: Fault, first: Entry, life: Life) -> bool:
    """Whether the run with this effect had been settled, and that noted, before the fault began."""
    return any(
        entry.pid == first.pid
        and entry.outcome == "handled"
        and first.at <= entry.at < fault.at
        and not index.is_owed(entry, fault)
        for entry in life.of("settled")
    )


def attempts(index: Lives) -> list[Violation]:
    """No attempt past the policy's, and none run more often than copies and faults allow."""
    violations, most = list[Violation](), index.book.promise.attempts
    for life in index.lives.values():
        starts = Counter(entry.attempt for entry in life.of("start"))
        if max(starts, default=0) > most:
            violations.append(
                Violation(Invariant.ATTEMPTS_BOUNDED, life.event_id, f"attempt {max(starts)}; the policy allows {most}")
            )
        runs = max(starts.values(), default=0)
        if runs > 1 and runs > index.most_copies(life):
            violations.append(
                Violation(
                    Invariant.ATTEMPTS_BOUNDED, life.event_id, f"one attempt was begun {runs} times in {life.queue}"
                )
            )
    return violations
