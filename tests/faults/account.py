"""The checker: from the ledgers of a run to a list of what does not add up. Pure, and itself under test."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import pairwise

from ledgers import Book, Entry, Fault, Letter, Sent


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken invariant (`I1` to `I10`), and the event or thing it broke on."""

    invariant: str
    subject: str
    text: str


@dataclass(frozen=True, slots=True)
class Repeat:
    """An effect that came again, and the fault that accounts for it."""

    event_id: str
    queue: str
    fault: str


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
        return sum(violation.invariant == "I1" for violation in self.violations)


@dataclass(slots=True)
class _Life:
    """One event in one queue."""

    event_id: str
    queue: str
    entries: list[Entry] = field(default_factory=list)
    letters: list[Letter] = field(default_factory=list)

    def of(self, phase: str) -> list[Entry]:
        return [entry for entry in self.entries if entry.phase == phase]

    @property
    def ended(self) -> bool:
        return bool(self.letters or self.of("effect"))


class _Index:
    """The ledgers, by event."""

    def __init__(self, book: Book) -> None:
        self.book = book
        self.sent = {sent.event_id: sent for sent in book.sent}
        self.lives: dict[tuple[str, str], _Life] = {}
        self.derived: dict[tuple[str, str], set[str]] = defaultdict(set)
        for entry in sorted(book.entries, key=lambda entry: entry.at):
            if entry.event_id:
                self.life(entry.event_id, entry.queue).entries.append(entry)
                if entry.event_id not in self.sent and entry.cause:
                    self.derived[entry.cause, entry.queue].add(entry.event_id)
        for letter in book.letters:
            self.life(letter.event_id, letter.queue).letters.append(letter)
        self.root = {derived: cause for (cause, _), many in self.derived.items() for derived in many}

    def life(self, event_id: str, queue: str) -> _Life:
        return self.lives.setdefault((event_id, queue), _Life(event_id, queue))

    def origin(self, event_id: str) -> Sent | None:
        return self.sent.get(self.root.get(event_id, event_id))

    def faults_during(self, life: _Life) -> list[Fault]:
        """The faults that may have touched an event: from when it was sent until the last word on it."""
        origin = self.origin(life.event_id)
        begin = origin.at if origin else 0.0
        end = max((entry.at for entry in life.entries), default=float("inf"))
        return [fault for fault in self.book.faults if fault.at <= end and begin <= fault.until]

    def copies(self, life: _Life) -> int:
        origin = self.origin(life.event_id)
        return origin.copies if origin else 1


def account(book: Book) -> Account:
    """Account for every event of a run."""
    index = _Index(book)
    repeats, unexplained = _effects(index)
    both, shared = _exclusive(index)
    recovery, late = _recovery(index)
    violations = (
        *_nothing_lost(index),
        *shared,
        *_nothing_invented(index),
        *unexplained,
        *_attempts(index),
        *_order(index),
        *late,
        *_ending(book),
        *_held_too_long(index),
        *_one_outcome(index),
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
        recovery=recovery,
        violations=violations,
    )


def _nothing_lost(index: _Index) -> list[Violation]:
    """I1: what was confirmed took effect or is a dead letter, and so did what its handler published for it."""
    promise, lost = index.book.promise, list[Violation]()
    for sent in index.book.sent:
        if sent.outcome != "confirmed":
            continue
        for queue in promise.routes[sent.type]:
            life = index.lives.get((sent.event_id, queue))
            if life is None or not life.ended:
                lost.append(Violation("I1", sent.event_id, f"confirmed, and no end in {queue}"))
            elif queue in promise.follows and not life.letters:
                further = promise.follows[queue]
                heirs = index.derived.get((sent.event_id, further), set())
                if not any(index.life(heir, further).ended for heir in heirs):
                    lost.append(
                        Violation("I1", sent.event_id, f"what {queue} published for it has no end in {further}")
                    )
    return lost


def _exclusive(index: _Index) -> tuple[list[str], list[Violation]]:
    """I2: effect and dead letter exclude one another, but for what was in flight at a fault; nor are there more
    letters than copies were sent."""
    both, violations = list[str](), list[Violation]()
    for life in index.lives.values():
        if not life.letters:
            continue
        faults = index.faults_during(life)
        if life.of("effect"):
            both.append(life.event_id)
            if not faults:
                violations.append(Violation("I2", life.event_id, f"took effect and is a dead letter in {life.queue}"))
        if len(life.letters) > index.copies(life) * (1 + len(faults)):
            violations.append(Violation("I2", life.event_id, f"{len(life.letters)} dead letters in {life.queue}"))
    return both, violations


def _nothing_invented(index: _Index) -> list[Violation]:
    """I3: every output has its cause among what was sent, and each cause one derived event in a queue."""
    unknown = {event_id for event_id, _ in index.lives if index.origin(event_id) is None}
    twins = {cause: many for (cause, _), many in index.derived.items() if len(many) > 1}
    return [
        *(Violation("I3", event_id, "handled, and never sent") for event_id in sorted(unknown)),
        *(
            Violation("I3", cause, f"{len(many)} different events were published for it")
            for cause, many in twins.items()
        ),
    ]


def _effects(index: _Index) -> tuple[list[Repeat], list[Violation]]:
    """I4: an effect comes again only where a fault says why, and seldom."""
    repeats, violations = list[Repeat](), list[Violation]()
    for life in index.lives.values():
        for first, again in pairwise(life.of("effect")):
            fault = next((fault for fault in index.book.faults if _explains(fault, first, again, life)), None)
            if fault is None:
                text = f"took effect in {life.queue} in process {first.pid} and again in {again.pid}"
                violations.append(Violation("I4", life.event_id, text))
            else:
                repeats.append(Repeat(life.event_id, life.queue, fault.what))
    single = sum(fault.explains == "its process" for fault in index.book.faults)
    most = single * index.book.promise.concurrency
    if sum(fault.explains == "what ran" for fault in index.book.faults) == 0 and len(repeats) > most:
        violations.append(Violation("I4", "all", f"{len(repeats)} repeats; the faults account for {most} at most"))
    return repeats, violations


def _explains(fault: Fault, first: Entry, again: Entry, life: _Life) -> bool:
    match fault.explains:
        case "nothing":
            return False
        case "its process":
            hit = fault.pid == first.pid and first.at <= fault.until and fault.at <= again.at
            completed = any(
                entry.pid == first.pid and entry.outcome == "handled" and first.at <= entry.at < fault.at
                for entry in life.of("settled")
            )
            return hit and not completed
        case "what ran":
            begun = max(
                (run.at for run in life.of("start") if run.pid == first.pid and run.at <= first.at), default=first.at
            )
            return begun <= fault.until and fault.at <= again.at


def _attempts(index: _Index) -> list[Violation]:
    """I5: no attempt past the policy's, and none run more often than copies and faults allow."""
    violations, most = list[Violation](), index.book.promise.attempts
    for life in index.lives.values():
        starts = Counter(entry.attempt for entry in life.of("start"))
        if max(starts, default=0) > most:
            violations.append(Violation("I5", life.event_id, f"attempt {max(starts)}; the policy allows {most}"))
        runs = max(starts.values(), default=0)
        if runs > 1 and runs > index.copies(life) * (1 + len(index.faults_during(life))):
            violations.append(Violation("I5", life.event_id, f"one attempt was begun {runs} times in {life.queue}"))
    return violations


def _order(index: _Index) -> list[Violation]:
    """I6: where order is promised, first effects of a key never go back."""
    last: dict[tuple[str, str], Entry] = {}
    violations = list[Violation]()
    for life in sorted(index.lives.values(), key=lambda life: min((e.at for e in life.of("effect")), default=0.0)):
        if life.queue not in index.book.promise.ordered or not life.of("effect"):
            continue
        effect = life.of("effect")[0]
        before = last.get((life.queue, effect.key))
        if before is not None and effect.seq < before.seq:
            violations.append(Violation("I6", life.event_id, f"{effect.key}: {effect.seq} after {before.seq}"))
        last[life.queue, effect.key] = effect
    return violations


def _recovery(index: _Index) -> tuple[float, list[Violation]]:
    """I7, first half: how long after the last fault was healed the last event sent before that came to its end."""
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
        "I7", "all", f"{longest:.1f} s until the backlog of the faults was through; {bound:g} s are allowed"
    )
    return longest, [late] if longest > bound else []


def _ending(book: Book) -> list[Violation]:
    """I7, second half, I8, I9, and the figures of I10."""
    ending, ledger = book.ending, Counter[tuple[int, str, str]]()
    for entry in book.entries:
        if entry.phase == "settled":
            ledger[entry.pid, entry.queue, entry.outcome] += 1
    return [
        *(Violation("I7", queue, f"{count} messages left") for queue, count in ending.left.items() if count),
        *(
            Violation("I7", str(pid), f"a worker told to stop ended with {code}")
            for pid, code in ending.codes.items()
            if code
        ),
        *(Violation("I8", key, "a claim is held, and no worker lives") for key in ending.stuck),
        *(
            Violation(
                "I9", growth.of, f"{growth.before} before, {growth.after} after; {growth.allowed} more are allowed"
            )
            for growth in ending.growth
            if growth.after > growth.before + growth.allowed
        ),
        *_differing("metric", ending.counted, ledger),
        *_differing("log", ending.logged, ledger),
    ]


def _held_too_long(index: _Index) -> list[Violation]:
    """I8, while the workers live: a claim is released before the copy that will claim again. So an event whose copy was
    confirmed when its process died is no suspect of having killed it."""
    violations = list[Violation]()
    for life in index.lives.values():
        died = min((entry.at for entry in life.of("dying")), default=None)
        if died is not None and any(entry.at > died for entry in life.of("suspected")):
            violations.append(
                Violation("I8", life.event_id, f"its claim in {life.queue} outlived the copy of its retry")
            )
    return violations


def _differing(
    name: str, figures: dict[tuple[int, str, str], int], ledger: Counter[tuple[int, str, str]]
) -> list[Violation]:
    pids = {pid for pid, _, _ in figures}
    places = {place for place in ledger if place[0] in pids} | set(figures)
    return [
        Violation(
            "I10",
            f"process {place[0]}",
            f"{place[1]} {place[2]}: {name} {figures.get(place, 0)}, ledger {ledger[place]}",
        )
        for place in sorted(places)
        if figures.get(place, 0) != ledger[place]
    ]


def _one_outcome(index: _Index) -> list[Violation]:
    """I10: a delivery that was said to be handled took effect; one said to be dead is a letter."""
    violations = list[Violation]()
    for life in index.lives.values():
        told = {entry.outcome for entry in life.of("settled")}
        if "handled" in told and not life.of("effect"):
            violations.append(Violation("I10", life.event_id, f"told as handled in {life.queue}, without an effect"))
        if "dead_lettered" in told and not life.letters:
            violations.append(
                Violation("I10", life.event_id, f"told as dead-lettered in {life.queue}, without a letter")
            )
    return violations
