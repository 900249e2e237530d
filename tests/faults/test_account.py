"""The checker finds each thing that may go wrong in the ledgers of a run, and nothing where all is well."""

from dataclasses import replace
from typing import Any

import pytest
from account import account
from invariants import Invariant
from ledgers import Book, Ending, Entry, Fault, Growth, Held, Letter, Phase, Promise, Sent, Skipped

WORK, LINK, LINKED = "w.work", "w.link", "w.linked"
PROMISE = Promise(routes={"job": (WORK,), "link": (LINK,)}, follows={LINK: LINKED}, attempts=3, concurrency=2)


def job(event_id: str = "e-1", *, at: float = 0.0, copies: int = 1, **more: Any) -> Sent:
    return Sent(event_id, "job", at, copies, more.pop("outcome", "confirmed"), **more)


def entry(phase: Phase, at: float, event_id: str = "e-1", pid: int = 1, **more: Any) -> Entry:
    return Entry(phase, pid, at, event_id, more.pop("queue", WORK), more.pop("attempt", 1), **more)


def handled(at: float = 1.0, event_id: str = "e-1", **more: Any) -> list[Entry]:
    """A run that went well, and what was said of it."""
    begin, end = entry("start", at, event_id, **more), entry("effect", at + 0.1, event_id, **more)
    return [begin, end, entry("settled", at + 0.2, event_id, outcome="handled", **more)]


def book(sent: list[Sent], entries: list[Entry], **more: Any) -> Book:
    parts: dict[str, Any] = {"faults": (), "letters": (), "ending": Ending()} | more
    return Book(
        more.pop("promise", PROMISE), tuple(sent), tuple(entries), **{k: v for k, v in parts.items() if k != "promise"}
    )


def broken(one: Book) -> set[Invariant]:
    return {violation.invariant for violation in account(one).violations}


def killed(at: float, pid: int = 1) -> tuple[Fault]:
    return (Fault("worker killed", at, at + 1, "its process", pid),)


def test_what_was_sent_and_handled_once_adds_up() -> None:
    told = account(book([job()], handled()))

    assert (told.violations, told.events, told.effects, told.repeats) == ((), 1, 1, ())


@pytest.mark.parametrize("outcome", ["unknown", "nacked", "returned"])
def test_what_was_not_confirmed_may_be_missing_or_not(outcome: str) -> None:
    absent = book([job(outcome=outcome)], [])
    present = book([job(outcome=outcome)], handled())

    assert broken(absent) == broken(present) == set()


def test_a_confirmed_event_without_an_end_is_lost() -> None:
    assert broken(book([job()], [])) == {Invariant.NOTHING_LOST}
    assert broken(book([job()], [entry("start", 1)])) == {Invariant.NOTHING_LOST}


def test_what_a_handler_published_and_nobody_handled_is_lost() -> None:
    sent = Sent("e-1", "link", 0.0, 1, "confirmed")
    first = handled(queue=LINK)
    whole = [*first, *handled(2.0, "d-1", queue=LINKED, cause="e-1")]

    assert broken(book([sent], whole)) == set()
    assert broken(book([sent], first)) == {Invariant.NOTHING_LOST}


def test_two_different_events_published_for_one_are_told() -> None:
    sent = Sent("e-1", "link", 0.0, 1, "confirmed")
    derived = [*handled(2.0, "d-1", queue=LINKED, cause="e-1"), *handled(2.0, "d-2", queue=LINKED, cause="e-1")]

    assert broken(book([sent], [*handled(queue=LINK), *derived])) == {Invariant.NOTHING_INVENTED}


def test_effect_and_dead_letter_exclude_one_another_without_a_fault() -> None:
    letters = (Letter("e-1", WORK, "exhausted"),)

    assert broken(book([job()], handled(), letters=letters)) == {Invariant.EXCLUSIVE}
    told = account(book([job()], handled(), letters=letters, faults=(Fault("connection cut", 1.0, 1.1),)))
    assert (told.violations, told.both) == ((), ("e-1",))


def test_more_dead_letters_than_copies_need_a_fault() -> None:
    letters = (Letter("e-1", WORK, "exhausted"),) * 2

    assert broken(book([job()], [], letters=letters)) == {Invariant.EXCLUSIVE}
    assert broken(book([job(copies=2)], [], letters=letters)) == set()


def test_a_fault_while_a_retry_is_published_leaves_three_copies_of_it_and_no_more() -> None:
    """The copy whose confirm was lost, that copy published again, and the one the redelivered original makes."""
    first = [entry("start", 1), entry("start", 2, pid=2)]
    cut = (Fault("broker restarted", 1.1, 1.9),)

    def ends(copies: int) -> dict[str, Any]:
        again = [entry("start", 3 + n, attempt=2) for n in range(copies)]
        return {"entries": [*first, *again], "faults": cut, "letters": (Letter("e-1", WORK, "exhausted"),) * copies}

    assert broken(book([job()], **ends(3))) == set()
    assert broken(book([job()], **ends(4))) == {Invariant.EXCLUSIVE, Invariant.ATTEMPTS_BOUNDED}


def test_an_effect_of_what_was_never_sent_is_invented() -> None:
    assert broken(book([], handled())) == {Invariant.NOTHING_INVENTED}


def test_an_effect_that_comes_again_without_a_fault_is_told() -> None:
    assert broken(book([job(copies=2)], [*handled(1), *handled(2, pid=2)])) == {Invariant.EFFECT_ONCE}


def test_a_kill_explains_what_its_process_had_under_way_alone() -> None:
    under_way = [entry("start", 1), entry("effect", 1.1)]
    again = handled(3, pid=2)

    told = account(book([job(copies=2)], [*under_way, *again], faults=killed(2)))
    assert (told.violations, [repeat.fault for repeat in told.repeats]) == ((), ["worker killed"])
    assert broken(book([job(copies=2)], [*handled(1), *again], faults=killed(2))) == {Invariant.EFFECT_ONCE}
    assert broken(book([job(copies=2)], [*under_way, *again], faults=killed(2, pid=7))) == {Invariant.EFFECT_ONCE}
    assert broken(book([job(copies=2)], [*under_way, *again], faults=(Fault("connection cut", 2, 2),))) == {
        Invariant.EFFECT_ONCE
    }


def test_claims_that_were_lost_explain_what_was_handled_before() -> None:
    flush = (Fault("Redis flushed", 2, 2, "what was noted"),)

    assert broken(book([job(copies=2)], [*handled(1), *handled(3)], faults=flush)) == set()
    assert broken(book([job(copies=2)], [entry("start", 1), entry("effect", 4), *handled(5)], faults=flush)) == set()
    assert broken(book([job(copies=2)], [*handled(4), *handled(5)], faults=flush)) == {Invariant.EFFECT_ONCE}


def test_leases_that_were_lost_explain_only_what_was_under_way_meanwhile() -> None:
    frozen, soon = (Fault("worker frozen", 2, 5, "what ran", 1),), [entry("start", 1), entry("effect", 1.1)]
    settled_before, settled_meanwhile = (entry("settled", at, outcome="handled") for at in (1.9, 2.1))
    again = handled(7, pid=2)

    assert broken(book([job(copies=2)], [*soon, *again], faults=frozen)) == set()
    assert broken(book([job(copies=2)], [*soon, settled_meanwhile, *again], faults=frozen)) == set()
    assert broken(book([job(copies=2)], [*soon, settled_before, *again], faults=frozen)) == {Invariant.EFFECT_ONCE}
    assert broken(book([job(copies=2)], [*handled(6), *again], faults=frozen)) == {Invariant.EFFECT_ONCE}


def test_a_kill_explains_no_more_repeats_than_ran_at_once() -> None:
    names = ["a", "b", "c"]
    runs = [one for name in names for one in (entry("effect", 1.1, name), *handled(3, name, pid=2))]

    assert broken(book([job(name, copies=2) for name in names], runs, faults=killed(2))) == {Invariant.EFFECT_ONCE}


def test_attempts_past_the_policy_and_runs_nobody_asked_for_are_told() -> None:
    fourth = [entry("start", n, attempt=n) for n in (1, 2, 3, 4)]

    assert broken(book([job()], [*fourth, *handled(5, attempt=4)[1:]])) == {Invariant.ATTEMPTS_BOUNDED}
    assert broken(book([job()], [entry("start", 1), *handled(2)])) == {Invariant.ATTEMPTS_BOUNDED}
    assert broken(book([job()], [entry("start", 1), *handled(3, pid=2)], faults=killed(2))) == set()


LINE = "w.project"
ORDERED = replace(PROMISE, routes={"placed": (LINE,)}, ordered=frozenset({LINE}))


def placed(seq: int, key: str = "k") -> Sent:
    return Sent(f"{key}-{seq}", "placed", 0.0, 1, "confirmed", (), key, seq)


def attempt(seq: int, at: float, *, key: str = "k", fence: int = 1, **more: Any) -> Entry:
    """The beginning of an attempt, or with another phase something later in it."""
    return entry(more.pop("phase", "start"), at, f"{key}-{seq}", queue=LINE, key=key, seq=seq, fence=fence, **more)


def ran(seq: int, at: float, **more: Any) -> list[Entry]:
    """An attempt of 0.3 s that takes effect."""
    return [
        attempt(seq, at, **more),
        attempt(seq, at + 0.1, phase="effect", **more),
        attempt(seq, at + 0.3, phase="done", **more),
    ]


def in_line(entries: list[Entry], **more: Any) -> set[Invariant]:
    names = {one.event_id for one in entries}
    keys = {name: name.rsplit("-", 1) for name in names}
    return broken(book([placed(int(seq), key) for key, seq in keys.values()], entries, promise=ORDERED, **more))


def test_order_is_held_to_where_it_is_promised() -> None:
    backwards = [*ran(2, 1), *ran(1, 2)]
    elsewhere = replace(ORDERED, ordered=frozenset[str]())

    assert in_line(backwards) == {Invariant.IN_ORDER}
    assert in_line([*ran(1, 1), *ran(2, 2)]) == in_line([*ran(2, 1), *ran(1, 2, key="l")]) == set()
    assert broken(book([placed(1), placed(2)], backwards, promise=elsewhere)) == set()


def test_an_event_that_comes_again_later_is_not_out_of_order() -> None:
    assert in_line([*ran(1, 1), *ran(2, 2), *ran(1, 3, pid=2)], faults=killed(1)) == set()


def test_an_event_that_passes_the_dead_letter_of_its_key_is_told() -> None:
    failed = [attempt(1, 1), attempt(1, 1.1, phase="done")]
    dead = entry("settled", 2, "k-1", queue=LINE, outcome="dead_lettered")
    letters = (Letter("k-1", LINE, "exhausted"),)

    def after(*later: Entry, skips: tuple[Skipped, ...] = ()) -> set[Invariant]:
        mended = (Fault("handlers fail", 0, 9),)
        return in_line([*failed, dead, *later], letters=letters, faults=mended, skipped=skips)

    assert after(*ran(2, 3)) == {Invariant.IN_ORDER}
    assert after(*ran(2, 3, key="l")) == set()
    assert after(*ran(2, 3), skips=(Skipped("k", LINE, 2.5),)) == set()
    assert after(*ran(2, 3), skips=(Skipped("l", LINE, 2.5),)) == {Invariant.IN_ORDER}
    assert after(*ran(1, 3), *ran(2, 4)) == set()


def test_two_attempts_of_a_key_at_a_time_are_told() -> None:
    overlapping = [*ran(1, 1, pid=1), *ran(2, 1.2, pid=2)]

    assert in_line(overlapping) == {Invariant.ONE_AT_A_TIME}
    assert in_line([*ran(1, 1, pid=1), *ran(2, 1.2, pid=2, key="l")]) == set()
    assert in_line(overlapping, faults=(Fault("connection cut", 1, 1.1),)) == {Invariant.ONE_AT_A_TIME}
    for process in (1, 2):  # it runs what it had claimed when it wakes, while another runs that
        assert in_line(overlapping, faults=(Fault("worker frozen", 1.1, 5, "what ran", process),)) == set()
    assert in_line(overlapping, faults=(Fault("worker frozen", 1.1, 5, "what ran", 3),)) == {Invariant.ONE_AT_A_TIME}


def test_an_attempt_ends_with_the_process_that_ran_it() -> None:
    begun = [attempt(1, 1), attempt(1, 1.1, phase="effect")]

    assert in_line([*begun, *ran(1, 3, pid=2)], faults=killed(2)) == set()
    assert in_line([*begun, *ran(2, 1.5, pid=2)], faults=killed(2)) == {Invariant.ONE_AT_A_TIME}


def test_a_fence_that_sinks_is_told_but_in_an_owner_that_cannot_know() -> None:
    sinking = [*ran(1, 1, fence=2), *ran(2, 2, fence=1, pid=2)]

    assert in_line(sinking) == {Invariant.FENCE_RISES}
    assert in_line([*ran(1, 1, fence=1), *ran(2, 2, fence=2, pid=2)]) == set()
    assert in_line(sinking, faults=(Fault("half-open connection", 0, 2),)) == set()
    assert in_line(sinking, faults=(Fault("half-open connection", 0, 1.5),)) == {Invariant.FENCE_RISES}
    assert in_line(sinking, faults=(Fault("worker frozen", 0, 2, "nothing", 1),)) == {Invariant.FENCE_RISES}
    assert in_line(sinking, faults=(Fault("connection cut", 0, 2),)) == {Invariant.FENCE_RISES}


def test_fences_of_several_partitions_are_compared_for_each_key() -> None:
    parted = replace(ORDERED, partitions=4)

    def broken_by(*later: Entry) -> set[Invariant]:
        names = [placed(1), *(placed(one.seq, one.key) for one in later[:1])]
        return broken(book(names, [*ran(1, 1, fence=2), *later], promise=parted))

    assert broken_by(*ran(2, 2, fence=1, pid=2, key="l")) == set()
    assert broken_by(*ran(2, 2, fence=1, pid=2)) == {Invariant.FENCE_RISES}


@pytest.mark.parametrize("kinds", [["record", "parked"], ["stub", "record"], ["sentinel"], []])
def test_a_ledger_that_holds_events_at_rest_or_no_record_is_told(kinds: list[str]) -> None:
    assert broken(book([], [], ending=Ending(in_ledgers={LINE: kinds}))) == {Invariant.LEDGER_EMPTY}
    assert broken(book([], [], ending=Ending(in_ledgers={LINE: ["record", "sentinel"]}))) == set()


def test_what_takes_too_long_after_the_last_fault_is_told() -> None:
    faults = (Fault("broker killed", 1, 2),)

    assert broken(book([job()], handled(3), faults=faults)) == set()
    assert broken(book([job()], handled(100), faults=faults)) == {Invariant.RECOVERS}


def test_what_is_left_behind_is_told() -> None:
    assert broken(book([], [], ending=Ending(left={WORK: ["a"]}))) == {Invariant.RECOVERS}
    assert broken(book([], [], ending=Ending(codes={1: -1000}))) == {Invariant.RECOVERS}
    assert broken(book([], [], ending=Ending(held=(Held("claim"),)))) == {Invariant.NO_CLAIM_STUCK}


@pytest.mark.parametrize(
    ("gone", "died", "is_owed"), [((1.1, 2), 1.5, True), ((1.1, 2), 5.5, False), ((1.3, 2), 1.5, False)]
)
def test_a_completion_is_owed_only_where_its_process_died_before_redis_came_back(
    gone: tuple[float, float], died: float, is_owed: bool
) -> None:
    faults = (Fault("Redis killed", *gone), *killed(died))
    ending = Ending(held=(Held("claim", "e-1", WORK),))
    again = handled(died + 3, pid=2)

    assert broken(book([job()], handled(), faults=faults, ending=ending)) == (
        set() if is_owed else {Invariant.NO_CLAIM_STUCK}
    )
    assert broken(book([job(copies=2)], [*handled(), *again], faults=faults)) == (
        set() if is_owed else {Invariant.EFFECT_ONCE}
    )


def test_a_claim_stays_held_where_its_process_was_killed_while_its_handler_ran() -> None:
    ending, other = Ending(held=(Held("claim", "e-1", WORK),)), handled(1, pid=2)

    assert broken(book([job(copies=2)], [*other, entry("start", 2)], faults=killed(3), ending=ending)) == set()
    assert broken(book([job(copies=2)], [*other, entry("start", 2)], faults=killed(3, pid=3), ending=ending)) == {
        Invariant.NO_CLAIM_STUCK
    }


def test_a_claim_stays_held_where_its_end_was_lost_in_a_failover() -> None:
    ending = Ending(held=(Held("claim", "e-1", WORK),))

    def failed_over(at: float) -> tuple[Fault]:
        return (Fault("Redis failed over", at, at + 1, "what ran"),)

    assert broken(book([job()], handled(1), faults=failed_over(1), ending=ending)) == set()
    assert broken(book([job()], handled(1), faults=failed_over(2), ending=ending)) == {Invariant.NO_CLAIM_STUCK}


def test_what_a_process_was_about_to_begin_when_it_was_frozen_is_explained_by_that() -> None:
    frozen = (Fault("worker frozen", 1, 2, "what ran", 1),)
    again = handled(3, attempt=2)

    soon, late = ([entry("start", at), entry("effect", at + 0.02), *again] for at in (2.001, 2.5))

    assert broken(book([job(copies=2)], soon, faults=frozen)) == set()
    assert broken(book([job(copies=2)], late, faults=frozen)) == {Invariant.EFFECT_ONCE}


def test_a_claim_that_outlives_the_copy_of_its_retry_is_told() -> None:
    died, suspected = entry("dying", 2, queue=WORK), entry("suspected", 5, pid=2)
    later = handled(6, pid=2, attempt=2)

    assert broken(book([job()], [entry("start", 1), died, *later], faults=killed(2))) == set()
    assert broken(book([job()], [entry("start", 1), died, suspected, *later], faults=killed(2))) == {
        Invariant.NO_CLAIM_STUCK
    }
    assert broken(book([job(copies=2)], [entry("start", 1), died, suspected, *later], faults=killed(2))) == set()


def test_growth_past_what_is_allowed_is_told() -> None:
    assert broken(book([], [], ending=Ending(growth=(Growth("tasks", 10, 15, 5),)))) == set()
    assert broken(book([], [], ending=Ending(growth=(Growth("tasks", 10, 16, 5),)))) == {Invariant.NOTHING_LEAKS}


@pytest.mark.parametrize("figures", ["counted", "logged"])
def test_metrics_and_log_say_what_the_ledger_says(figures: str) -> None:
    right, wrong = {(1, WORK, "handled"): 1}, {(1, WORK, "handled"): 2}

    assert broken(book([job()], handled(), ending=Ending(**{figures: right}))) == set()
    assert broken(book([job()], handled(), ending=Ending(**{figures: wrong}))) == {Invariant.ADDS_UP}


def test_an_outcome_that_was_told_has_happened() -> None:
    told_dead = [entry("settled", 1, outcome="dead_lettered")]
    told_handled = [entry("settled", 1, outcome="handled")]

    assert broken(book([job(outcome="unknown")], told_dead)) == {Invariant.ADDS_UP}
    assert broken(book([job(outcome="unknown")], told_handled)) == {Invariant.ADDS_UP}
