"""What holds of the whole run: how soon it came to rest, and what was found then."""

from collections import Counter

from invariants import Invariant
from ledgers import Book, Series
from lives import Lives, Violation


def recovery(index: Lives) -> tuple[float, list[Violation]]:
    """How long after the last fault was healed the last event sent before that came to its end."""
    healed = max((fault.until for fault in index.book.faults), default=None)
    if healed is None:
        return 0.0, []
    ends = [0.0]
    for (event_id, _), life in index.lives.items():
        origin = index.origin(event_id)
        told = [entry.at for entry in life.entries if entry.phase in ("effect", "settled")]
        if origin is not None and origin.at < healed and told:
            first = next((entry.at for entry in life.of("effect")), max(told))
            ends.append(first - healed)
    longest, bound = max(ends), index.book.promise.recovery
    late = Violation(
        Invariant.RECOVERS,
        "all",
        f"{longest:.1f} s until the backlog of the faults was through; {bound:g} s are allowed",
    )
    return longest, [late] if longest > bound else []


def ending(book: Book) -> list[Violation]:
    """What is left behind, how workers ended, what they hold, and the figures of metrics and log."""
    ending, ledger = book.ending, Counter[Series]()
    for entry in book.entries:
        if entry.phase == "settled":
            ledger[entry.pid, entry.queue, entry.outcome] += 1
    return [
        *(
            Violation(Invariant.RECOVERS, queue, f"left in it: {', '.join(ids)}")
            for queue, ids in ending.left.items()
            if ids
        ),
        *(
            Violation(Invariant.RECOVERS, str(pid), f"a worker told to stop ended with {code}")
            for pid, code in ending.codes.items()
            if code
        ),
        *(
            Violation(
                Invariant.NOTHING_LEAKS,
                growth.of,
                f"{growth.before} before, {growth.after} after; {growth.allowed} more are allowed",
            )
            for growth in ending.growth
            if growth.after > growth.before + growth.allowed
        ),
        *_differing("metric", ending.counted, ledger),
        *_differing("log", ending.logged, ledger),
    ]


def _differing(name: str, figures: dict[Series, int], ledger: Counter[Series]) -> list[Violation]:
    pids = {pid for pid, _, _ in figures}
    places = {place for place in ledger if place[0] in pids} | set(figures)
    return [
        Violation(
            Invariant.ADDS_UP,
            f"process {place[0]}",
            f"{place[1]} {place[2]}: {name} {figures.get(place, 0)}, ledger {ledger[place]}",
        )
        for place in sorted(places)
        if figures.get(place, 0) != ledger[place]
    ]
