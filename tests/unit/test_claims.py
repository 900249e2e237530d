"""The state machine of a claim, under every interleaving of two workers; keys and fingerprints."""

import gzip
import secrets
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
from builders import NOON, a_message, some_metadata
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from holdfast.events import Envelope, Message, Names, derived_id, in_form, to_message, uuid7
from holdfast.idempotency import Acquired, Claim, Done, MemoryClaims, Suspect, claim_key, fingerprint_of
from holdfast.journal.recorder import outgoing_from

BODY = b'{"order_id":"o-1","total":9.5}'
T = TypeVar("T")
WINDOW, LEASE = 1000.0, 10.0


def now(step: Coroutine[Any, Any, T]) -> T:
    """The memory store never waits."""
    try:
        step.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    raise AssertionError("the memory store waited")


class TwoWorkers(RuleBasedStateMachine):
    """Two workers claim, renew, complete, release, stall and lose their lease, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.time = 0.0
        self.store = MemoryClaims(ttl=WINDOW, clock=lambda: self.time)
        self.held: dict[bytes, list[Claim]] = {b"A": [], b"B": []}
        self.completed: list[Claim] = []

    workers = st.sampled_from([b"A", b"B"])

    @rule(worker=workers)
    def renew(self, worker: bytes) -> None:
        self.store.beat(worker, LEASE)

    @rule(worker=workers, alone=st.booleans())
    def claim(self, worker: bytes, alone: bool) -> None:
        claim = Claim("key", secrets.token_bytes(8), bytes(8), worker)
        if worker in self.store._alive and self.store._alive[worker] > self.time:
            answer = now(self.store.claim(claim, alone=alone))
            assert not (self.completed and isinstance(answer, Acquired | Suspect)), "claimed after its completion"
            if isinstance(answer, Acquired):
                self.held[worker].append(claim)

    @rule(worker=workers, pick=st.integers(0, 5))
    def complete(self, worker: bytes, pick: int) -> None:
        if held := self.held[worker]:
            claim = held[pick % len(held)]
            if now(self.store.complete(claim)) != "fenced":
                self.completed.append(claim)

    @rule(worker=workers, pick=st.integers(0, 5), forget=st.booleans())
    def release(self, worker: bytes, pick: int, forget: bool) -> None:
        if held := self.held[worker]:
            claim = held.pop(pick % len(held))
            if claim not in self.completed:
                now(self.store.release(claim, forget=forget))

    @rule(seconds=st.sampled_from([1.0, LEASE / 2, LEASE, 2 * LEASE]))
    def stall(self, seconds: float) -> None:
        self.time = min(self.time + seconds, WINDOW / 2)

    @invariant()
    def no_two_claims_complete(self) -> None:
        assert len({claim.token for claim in self.completed}) <= 1


TestTwoWorkers = TwoWorkers.TestCase


async def test_a_key_names_prefix_and_scope_and_is_short_whatever_it_is_made_of() -> None:
    usual = claim_key("holdfast", "billing.charge", "shop", "id-1")
    hostile = claim_key("holdfast", "q" * 180, "x" * 255, "\ud800\x00" * 100)

    assert usual.startswith("holdfast:billing.charge:")
    assert len(usual) < 60
    assert len(hostile) < 100


@pytest.mark.parametrize("other", [("shop", "id-2"), ("kiosk", "id-1"), ("", "shopid-1"), ("key", "", "id-1")])
def test_keys_of_different_events_differ(other: tuple[str, ...]) -> None:
    assert claim_key("p", "q", "shop", "id-1") != claim_key("p", "q", *other)


@pytest.mark.parametrize(
    "forged", [("key", "\0order-1"), ("key\0", "order-1"), ("key\0\0order-1",), ("3:key0:", "order-1")]
)
def test_no_source_and_id_can_be_made_to_pass_for_a_key_of_the_handlers(forged: tuple[str, ...]) -> None:
    assert claim_key("p", "q", *forged) != claim_key("p", "q", "key", "", "order-1")


def test_a_key_is_the_one_that_earlier_releases_wrote() -> None:
    keys = [claim_key("holdfast", "billing.charge", "shop", "id-1"), claim_key("p", "q" * 100, "e")]

    long = "p:qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq~dUCvEqa1d1L8jFK1MTHz0w:9bzBvNzjL2R8oASNLUWFXA"
    assert keys == ["holdfast:billing.charge:jcRZpuGIGx_-8-hjZ43M0A", long]


def test_queues_whose_long_names_begin_alike_have_keys_of_their_own() -> None:
    assert claim_key("p", "q" * 100 + "1", "e") != claim_key("p", "q" * 100 + "2", "e")


def test_another_payload_has_another_fingerprint() -> None:
    metadata = some_metadata(event_id=uuid7())

    fingerprints = {fingerprint_of(a_message(body), metadata, own_key=False) for body in (b"1", b"2")}

    assert len(fingerprints) == 2


@pytest.mark.parametrize(
    "sent",
    [
        a_message(gzip.compress(BODY), content_encoding="gzip"),
        a_message(b"\xef\xbb\xbf" + BODY),
        a_message(BODY, content_type="application/json; charset=utf-8"),
        to_message(in_form(Envelope(some_metadata(), BODY), "cloudevents-structured"), exchange="events"),
    ],
    ids=["compressed", "with a byte order mark", "with a charset", "as a CloudEvent"],
)
def test_an_event_has_the_fingerprint_with_which_a_journal_sends_it(sent: Message) -> None:
    kept = to_message(outgoing_from(sent, NOON, Names()).envelope, exchange="events")

    fingerprints = {fingerprint_of(message, some_metadata(), own_key=False) for message in (sent, kept)}

    assert kept.body == BODY
    assert fingerprints == {fingerprint_of(a_message(BODY), some_metadata(), own_key=False)}


def test_a_derived_id_stands_for_its_event_whatever_the_second_run_wrote() -> None:
    metadata = some_metadata(event_id=derived_id("cause", "handler", 0))

    by_id = {fingerprint_of(a_message(body), metadata, own_key=False) for body in (b"1", b"2")}
    by_key = {fingerprint_of(a_message(body), metadata, own_key=True) for body in (b"1", b"2")}

    assert (len(by_id), len(by_key)) == (1, 2)


async def test_memory_forgets_what_is_past_its_window() -> None:
    time = 0.0
    store = MemoryClaims(ttl=10, clock=lambda: time)
    for n in range(100):
        await store.complete(Claim(str(n), secrets.token_bytes(8), bytes(8), b"A"))

    time = 11.0
    await store.complete(Claim("last", secrets.token_bytes(8), bytes(8), b"A"))

    assert len(store._records) == 1
    assert await store.claim(Claim("last", secrets.token_bytes(8), bytes(8), b"B")) == Done()
