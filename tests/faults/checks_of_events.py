"""What holds of single events: each has one end, that it was said to have."""

from invariants import Invariant
from lives import Life, Lives, Violation


def nothing_lost(index: Lives) -> list[Violation]:
    """What was confirmed took effect or is a dead letter, and so did what its handler published for it."""
    promise, lost = index.book.promise, list[Violation]()
    for sent in index.book.sent:
        if sent.outcome != "confirmed":
            continue
        for queue in promise.routes[sent.type]:
            life = index.lives.get((sent.event_id, queue))
            if life is None or not life.ended:
                lost.append(Violation(Invariant.NOTHING_LOST, sent.event_id, f"confirmed, and no end in {queue}"))
            elif queue in promise.follows and not life.letters:
                further = promise.follows[queue]
                heirs = index.derived.get((sent.event_id, further), set())
                if not any(index.life(heir, further).ended for heir in heirs):
                    lost.append(
                        Violation(
                            Invariant.NOTHING_LOST,
                            sent.event_id,
                            f"what {queue} published for it has no end in {further}",
                        )
                    )
    return lost


def exclusive(index: Lives) -> tuple[list[str], list[Violation]]:
    """Effect and dead letter exclude one another, but for what was in flight at a fault; nor are there more
    letters than copies were sent, and came to be at faults."""
    both, violations = list[str](), list[Violation]()
    for life in index.lives.values():
        if not life.letters:
            continue
        faults = index.faults_during(life)
        if life.of("effect"):
            both.append(life.event_id)
            if not faults:
                violations.append(
                    Violation(Invariant.EXCLUSIVE, life.event_id, f"took effect and is a dead letter in {life.queue}")
                )
        if len(life.letters) > index.most_copies(life):
            violations.append(
                Violation(Invariant.EXCLUSIVE, life.event_id, f"{len(life.letters)} dead letters in {life.queue}")
            )
    return both, violations


def nothing_invented(index: Lives) -> list[Violation]:
    """Every output has its cause among what was sent, and each cause one derived event in a queue."""
    unknown = {event_id for event_id, _ in index.lives if index.origin(event_id) is None}
    twins = {cause: many for (cause, _), many in index.derived.items() if len(many) > 1}
    return [
        *(Violation(Invariant.NOTHING_INVENTED, event_id, "handled, and never sent") for event_id in sorted(unknown)),
        *(
            Violation(Invariant.NOTHING_INVENTED, cause, f"{len(many)} different events were published for it")
            for cause, many in twins.items()
        ),
    ]


def held_too_long(index: Lives) -> list[Violation]:
    """At the end no claim is held but by a process that was killed. While workers live, a claim is released before
    the copy that will claim again: so an event whose copy was confirmed when its process died is no suspect of having
    killed it. One that was published more than once is left out: its other message may have run just then."""
    violations = [
        Violation(
            Invariant.NO_CLAIM_STUCK,
            held.event_id or held.key,
            f"its claim in {held.queue} is held, and no worker lives",
        )
        for held in index.book.ending.held
        if not _left_by_the_dead(index, index.lives.get((held.event_id, held.queue)))
    ]
    for life in index.lives.values():
        died = min((entry.at for entry in life.of("dying")), default=None)
        is_one = life.event_id not in index.sent or index.sent[life.event_id].copies == 1
        if is_one and died is not None and any(entry.at > died for entry in life.of("suspected")):
            violations.append(
                Violation(
                    Invariant.NO_CLAIM_STUCK, life.event_id, f"its claim in {life.queue} outlived the copy of its retry"
                )
            )
    return violations


def _left_by_the_dead(index: Lives, life: Life | None) -> bool:
    """Whether a process was killed that held it: while its handler ran, or, with Redis gone, before it could record
    that the event was handled; or whether its end was lost with the master it was told to. Nobody has to wait for such
    a claim: its owner's heartbeat ends with it."""
    if life is None:
        return False
    faults = index.book.faults
    for lost in (fault for fault in faults if fault.what == "Redis failed over"):
        if any(lost.at <= settled.at <= lost.until for settled in life.of("settled")):
            return True
    for killed in (fault for fault in faults if fault.explains == "its process"):
        own = [entry for entry in life.entries if entry.pid == killed.pid and entry.at <= killed.at]
        match own[-1].phase if own else "":
            case "start" | "effect" | "done":
                return True
            case "settled":
                if index.is_owed(own[-1], killed):
                    return True
    return False


def one_outcome(index: Lives) -> list[Violation]:
    """A delivery that was said to be handled took effect; one said to be dead is a letter."""
    violations = list[Violation]()
    for life in index.lives.values():
        told = {entry.outcome for entry in life.of("settled")}
        if "handled" in told and not life.of("effect"):
            violations.append(
                Violation(Invariant.ADDS_UP, life.event_id, f"told as handled in {life.queue}, without an effect")
            )
        if "dead_lettered" in told and not life.letters:
            violations.append(
                Violation(Invariant.ADDS_UP, life.event_id, f"told as dead-lettered in {life.queue}, without a letter")
            )
    return violations
