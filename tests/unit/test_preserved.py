"""What is read from a copy is what was read from its original, but for the attempt, whoever wrote it."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from builders import NOON, OrderCreated, a_message, some_metadata, some_settings
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from holdfast import Context, Event, Retry, Unreadable, Worker
from holdfast.broker.codec import pack, unpack
from holdfast.consumer.copies import dead_letter, postponed_copy
from holdfast.consumer.outcome import DeadLetter, Postpone
from holdfast.dead_letters.archive import from_line, to_line
from holdfast.dead_letters.letter import key_of, read_letter
from holdfast.dead_letters.replay import Edit, edited, replayed
from holdfast.events import (
    Incoming,
    Message,
    Names,
    decode,
    decoder_for,
    in_form,
    read_incoming,
    seal,
    to_message,
    uuid7,
)
from holdfast.events import headers as h
from holdfast.testing import Harness

BUDGET = 126_976
NAMES = Names(id=("Acme.Id",), type=("Acme.Type",))
LATER = NOON + timedelta(hours=1)

texts = st.sampled_from(["", "e-1", "order.created", "Größe", "é" * 127, "x" * 255]) | st.text(
    st.characters(codec="utf-8", exclude_characters="\0"), max_size=12
)
times = st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))]))
recent = st.datetimes(*(NOON.replace(year=year, tzinfo=None) for year in (1971, 2105)), timezones=st.just(UTC))
values = st.one_of(
    texts,
    st.integers(-3, 2**62),
    st.booleans(),
    st.none(),
    st.floats(allow_nan=False),
    st.binary(max_size=6),
    st.just({"a": [1, {"b": "c"}]}),
    times.map(datetime.isoformat),
)
OWN = ("mine", "ratio", "Acme.Id", "Acme.Type", "ce-tenant", h.TRACESTATE)
OURS = (h.EVENT_ID, h.EVENT_VERSION, h.EVENT_TIME, h.EVENT_KEY, h.CAUSATION_ID, h.CAUSED_BY, h.TRACEPARENT)
BROKERS = ("x-death", "x-delivery-count", "CC")
properties = st.fixed_dictionaries(
    {"body": st.sampled_from([b'{"order_id": "o-1"}', b"[1]", b"\xff", b'\xef\xbb\xbf{"order_id": "o-1"}'])},
    optional={
        "message_id": st.none() | texts,
        "type": st.none() | texts,
        "app_id": st.none() | texts,
        "correlation_id": st.none() | texts,
        "timestamp": st.none() | st.integers(0, 2**32 - 1).map(lambda seconds: datetime.fromtimestamp(seconds, UTC)),
        "content_type": st.sampled_from([None, "text/plain", "application/json", "application/vnd.acme+json"]),
    },
)


@st.composite
def ours(draw: st.DrawFn) -> Message:
    """An event as Holdfast writes it, in each form, with what an application adds."""
    cause = draw(st.none() | st.just(some_metadata(traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01")))
    event = OrderCreated(order_id=draw(texts), total=2.5)
    envelope = seal(event, source=draw(texts), cause=cause, now=draw(recent))
    envelope = replace(envelope, headers=draw(st.dictionaries(st.sampled_from(OWN), values, max_size=2)))
    form: Any = draw(st.sampled_from(["plain", "cloudevents-binary", "cloudevents-structured"]))
    return to_message(in_form(envelope, form), exchange="events")


@st.composite
def foreign(draw: st.DrawFn) -> Message:
    """A message of any producer, some of whose headers have names of ours."""
    headers = draw(st.dictionaries(st.sampled_from((*OWN, *OURS)), values, max_size=5))
    return a_message(**{"headers": headers, "routing_key": draw(texts), **draw(properties)})


@st.composite
def cloud_events(draw: st.DrawFn) -> Message:
    """A CloudEvent of another producer: binary in each of the forms that are known, structured, or as text."""
    attributes = {
        "specversion": "1.0",
        "id": draw(st.sampled_from(["7", 7, 0, "x" * 255])),
        "source": draw(st.sampled_from(["/shop", "Größe", "x" * 255])),
        "type": draw(st.sampled_from(["order.created", "com.acme.Order"])),
        **draw(
            st.fixed_dictionaries(
                {},
                optional={
                    "subject": texts | st.integers(0, 9),
                    "time": times.map(datetime.isoformat),
                    "eventversion": st.sampled_from(["2", 2, "x"]),
                    "correlationid": texts,
                    "causationid": texts,
                    "causedby": texts,
                    "traceparent": texts,
                },
            )
        ),
    }
    form = draw(st.sampled_from(["cloudEvents:", "cloudEvents_", "ce-", "application/cloudevents+json", "text/plain"]))
    base = a_message(**{**draw(properties), "content_type": "application/json"})
    if form.endswith(("-", ":", "_")):
        stray = draw(st.dictionaries(st.sampled_from([h.EVENT_KEY, h.EVENT_VERSION, "mine"]), values, max_size=2))
        return replace(base, headers={f"{form}{name}": value for name, value in attributes.items()} | stray)
    body = json.dumps({**attributes, "data": {"order_id": "o-1"}}).encode()
    return replace(base, body=body, content_type=form, headers=draw(st.just({"mine": 1})))


messages = ours() | foreign() | cloud_events()


def wired(message: Message) -> Message:
    """The message as it comes from RabbitMQ."""
    packed = pack(message)
    return unpack(message.exchange.encode(), message.routing_key.encode(), packed.header, packed.body)


def reading(message: Message, now: datetime = NOON) -> tuple[Any, ...]:
    """All that a handler learns of a message, but for the attempt."""
    incoming = read_incoming(message, now, NAMES)
    try:
        event = decode(decoder_for(dict), message)
    except Unreadable as error:
        event = str(error)
    carried = {name: value for name, value in message.headers.items() if h.is_free(name)}
    return incoming.metadata, incoming.has_id, event, message.body, carried


def retried(incoming: Incoming) -> Message:
    return postponed_copy(incoming, Postpone(1.0, ValueError("x")), queue="q", now=LATER, budget=BUDGET)


def held(incoming: Incoming) -> Message:
    return postponed_copy(incoming, Postpone(1.0, None), queue="q", now=LATER, budget=BUDGET)


def dead(incoming: Incoming) -> Message:
    reason = DeadLetter("exhausted", ValueError("x"))
    return dead_letter(incoming, reason, queue="q", handler="h", now=LATER, budget=BUDGET)


def replay_of(message: Message, *, forced: bool = False) -> Message:
    kept, _ = from_line(to_line(message))  # as an index and an archive keep it
    letter = read_letter(kept, key=key_of(kept), position=1)
    return replayed(letter, operation="replay-1", target="q", forced=forced)


def dead_and_replayed(incoming: Incoming) -> Message:
    return replay_of(wired(dead(incoming)))


def restored_and_replayed(incoming: Incoming) -> Message:
    return replay_of(replace(wired(dead(incoming)), exchange="", routing_key="q.dead"), forced=True)


COPIES = [retried, held, dead, dead_and_replayed, restored_and_replayed]


@pytest.mark.parametrize("copy", COPIES)
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(messages)
@example(a_message(message_id=None, type=None))
@example(a_message(headers={"ce-specversion": "1.0", "ce-id": 7, "ce-source": "/s", "ce-type": "t", h.EVENT_KEY: "k"}))
def test_a_copy_is_read_as_its_original(copy: Callable[[Incoming], Message], message: Message) -> None:
    original = wired(message)
    first = reading(original)

    once = wired(copy(read_incoming(original, NOON, NAMES)))
    twice = wired(copy(read_incoming(once, LATER, NAMES)))

    assert reading(once, LATER) == first
    assert reading(twice, LATER) == first
    assert len({original.message_id, once.message_id, twice.message_id}) == 3


def by_the_broker(message: Message) -> Message:
    """The message as RabbitMQ dead-letters it: no worker has read it."""
    death = {"queue": "q", "reason": "rejected", "exchange": message.exchange, "routing-keys": [message.routing_key]}
    headers = {**message.headers, "x-death": [death | {"count": 1}], "x-first-death-queue": "q"}
    return replace(message, exchange="dlx", routing_key="q.dead", headers=headers)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(messages)
@example(a_message(message_id=None, type=None))
def test_a_replay_of_what_the_broker_dead_lettered_is_read_as_its_original(message: Message) -> None:
    original = wired(message)

    again = wired(replay_of(wired(by_the_broker(original))))
    retry = wired(retried(read_incoming(again, NOON, NAMES)))

    assert reading(again) == reading(original)
    assert reading(retry) == reading(original)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(messages, st.booleans())
@example(a_message(headers={h.EVENT_TIME: "1970-01-01T00:00:00+00:00"}), False)
def test_an_edit_is_read_as_its_original_but_for_what_was_edited(message: Message, by_us: bool) -> None:
    original = wired(replace(message, headers={n: v for n, v in message.headers.items() if not n.startswith("Acme")}))
    incoming = read_incoming(original, NOON)
    lying = wired(dead(incoming) if by_us else by_the_broker(original))
    letter = read_letter(lying, key=key_of(lying), position=1)

    made = wired(edited(letter, Edit(b'{"order_id": "o-2"}', {"mine": "edited"}), operation="edit-1", target="q"))

    again = read_incoming(made, NOON)
    old, new = incoming.metadata, again.metadata
    assert new == replace(old, event_id=new.event_id, causation_id=old.event_id, caused_by=None)
    assert new.event_id != old.event_id and again.has_id
    assert made.body == b'{"order_id": "o-2"}'
    kept = {name: value for name, value in original.headers.items() if h.is_free(name)}
    assert {name: value for name, value in made.headers.items() if h.is_free(name)} == {**kept, "mine": "edited"}


def an_order(event_id: Any = "7", **attributes: Any) -> dict[str, Any]:
    whole = {"specversion": "1.0", "id": event_id, "source": "/shop", "type": "preserved.order", **attributes}
    return {f"ce-{name}": value for name, value in whole.items()}


class Order(Event, type="preserved.order", version=2):
    order_id: str


async def test_a_cloudevent_that_fails_once_keeps_its_version_source_key_and_trace() -> None:
    seen: list[tuple[Any, ...]] = []
    worker = Worker("preserved", settings=some_settings())

    @worker.handler(Order, retry=Retry(attempts=3))
    async def handle(event: Order, ctx: Context) -> None:
        seen.append((event, ctx.metadata, ctx.headers))
        if ctx.attempt == 1:
            raise ValueError("a transient failure")

    extensions = {"eventversion": "2", "subject": "k", "correlationid": "c", "traceparent": "00-1-2-01"}
    async with Harness(worker) as harness:
        for _ in range(2):  # the second is the same event, and must be known after the retry
            await harness.publish_raw(
                "preserved.order", b'{"order_id": "o-1"}', type=None, headers=an_order(**extensions), message_id=uuid7()
            )
            await harness.settle()

    [first, second] = seen
    assert first == second
    assert (first[1].version, first[1].source, first[1].key, first[1].correlation_id) == (2, "/shop", "k", "c")
    assert sorted(fact.outcome for fact in harness.settled) == ["duplicate", "handled", "postponed"]


async def test_three_messages_without_ids_are_three_events_however_alike_they_are() -> None:
    runs: list[str] = []
    worker = Worker("preserved", settings=some_settings())

    @worker.handler("order.*", retry=Retry(attempts=2))
    async def handle(event: dict[str, Any], ctx: Context) -> None:
        runs.append(ctx.metadata.event_type)
        if ctx.attempt == 1 and ctx.metadata.event_type == "order.paid":
            raise ValueError("a transient failure")
        await ctx.publish(Order(order_id=event["id"]))

    async with Harness(worker) as harness:
        for event_type in ("order.placed", "order.paid", "order.placed", "order.sent"):
            await harness.publish_raw(event_type, b'{"id": "1"}', type=None, message_id=None)
        await harness.settle()

    assert sorted(runs) == ["order.paid", "order.paid", "order.placed", "order.placed", "order.sent"]
    assert not any(fact.outcome == "duplicate" for fact in harness.settled)
    ids = [published.metadata.event_id for published in harness.published]
    assert len(ids) == 4 == len(set(ids)), "events published for a guess must not be taken for one another"
    assert {fact.claim for fact in harness.settled} == {None}


async def test_a_handler_with_a_key_of_its_own_claims_messages_without_ids() -> None:
    worker = Worker("preserved", settings=some_settings())

    @worker.handler("order.*", key="id")
    async def handle(event: dict[str, Any]) -> None: ...

    async with Harness(worker) as harness:
        for _ in range(2):
            await harness.publish_raw("order.placed", b'{"id": "1"}', message_id=None)
        await harness.settle()

    assert sorted(fact.outcome for fact in harness.settled) == ["duplicate", "handled"]


async def test_headers_that_a_setting_names_hold_ids_on_which_events_are_claimed() -> None:
    names = {"id_headers": ("NServiceBus.MessageId",), "type_headers": ("NServiceBus.Type",)}
    worker = Worker("preserved", settings=some_settings(worker=names))
    seen: list[tuple[str, str]] = []

    @worker.handler("acme.#", retry=Retry(attempts=2))
    async def handle(event: dict[str, Any], ctx: Context) -> None:
        seen.append((ctx.event_id, ctx.metadata.event_type))
        if ctx.attempt == 1:
            raise ValueError("a transient failure")

    async with Harness(worker) as harness:
        for _ in range(2):
            carried = {"NServiceBus.MessageId": "n-1", "NServiceBus.Type": "acme.Order"}
            await harness.publish_raw("acme.queue", b"{}", type=None, message_id=None, headers=carried)
            await harness.settle()

    assert seen == [("n-1", "acme.Order")] * 2
    assert sorted(fact.outcome for fact in harness.settled) == ["duplicate", "handled", "postponed"]


def test_ids_of_guesses_are_marked_in_what_is_copied_from_them() -> None:
    guessed = read_incoming(a_message(message_id=None), NOON)

    assert re.fullmatch(r"sha256:[0-9a-f]{64}", guessed.metadata.event_id)
    assert not guessed.has_id and not read_incoming(retried(guessed), NOON).has_id
    assert h.GUESSED_ID not in retried(read_incoming(a_message(), NOON)).headers
