"""Events say what they are; building one is strict, reading one is lenient."""

import math
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, Generic, TypeVar

import pytest
from builders import NOON, OrderCreated, a_message, some_metadata
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, ValidationError, field_validator

from holdfast import ConfigurationError, Event, PublishError, Unreadable
from holdfast.broker.codec import pack
from holdfast.events import (
    Envelope,
    Message,
    Names,
    decode,
    decoder_for,
    derived_id,
    encode,
    headers,
    origin,
    read_history,
    read_incoming,
    read_metadata,
    seal,
    to_message,
    uuid7,
)


def test_a_type_comes_from_the_class_name_unless_it_is_given() -> None:
    class InvoiceSent(Event): ...

    class HTTPRequestLogged(Event): ...

    assert InvoiceSent.__event_type__ == "invoice.sent"
    assert HTTPRequestLogged.__event_type__ == "http.request.logged"
    assert (OrderCreated.__event_type__, OrderCreated.__event_version__) == ("order.created", 2)


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [({"type": "a b"}, "type='a b'"), ({"version": 0}, "version=0"), ({"key": "nope"}, "key='nope'")],
)
def test_a_wrong_class_argument_is_named_at_import(arguments: dict[str, object], fault: str) -> None:
    with pytest.raises(ConfigurationError, match=fault):
        type("Wrong", (Event,), {"__annotations__": {}}, **arguments)


def test_a_type_defined_twice_in_one_place_is_refused_at_import() -> None:
    class Shipped(Event, type="shipped"): ...

    with pytest.raises(ConfigurationError, match=r"class Sent: type 'shipped' version 1 is Shipped already"):

        class Sent(Event, type="shipped"): ...

    class Sent2(Event, type="shipped", version=2): ...


def test_a_class_defined_again_as_in_a_notebook_replaces_itself() -> None:
    for fields in ({"a": int}, {"b": int}):

        class Shipped(Event, type="shipped"):
            __annotations__ = fields

    assert set(Shipped.model_fields) == {"b"}


Content = TypeVar("Content")


class Wrapped(Event, Generic[Content], type="events.wrapped", version=3, key="number"):
    number: int
    content: Content


def test_a_generic_class_with_its_parameters_is_the_same_event() -> None:
    class OfText(Wrapped[str]): ...

    for cls in (Wrapped[int], Wrapped[OrderCreated], Wrapped[list[int]]):
        assert (cls.__event_type__, cls.__event_version__, cls.__event_key__) == ("events.wrapped", 3, "number")
    sealed = seal(Wrapped[int](number=7, content=1), source="s").metadata
    assert (sealed.event_type, sealed.version, sealed.key) == ("events.wrapped", 3, "7")
    assert decode(decoder_for(Wrapped[int]), a_message(b'{"number": 1, "content": 2}')) == Wrapped[int](
        number=1, content=2
    )
    assert (OfText.__event_type__, OfText.__event_version__, OfText.__event_key__) == ("of.text", 1, "number")


def test_generic_classes_of_two_names_may_not_share_a_type() -> None:
    class Other(Event, Generic[Content], type="events.local"):
        content: Content

    class Local(Event, Generic[Content], type="events.local", version=2):
        content: Content

    assert Other[int].__event_type__ == Local[int].__event_type__
    with pytest.raises(ConfigurationError, match="is Other already"):

        class Third(Event, type="events.local"): ...


def test_a_subclass_with_a_version_is_that_version_of_its_class() -> None:
    class Order(Event, key="number"):
        number: int

    class OrderV2(Order, version=2):
        total: int = 0

    class OrderV3(OrderV2, version=3): ...

    class Bill(Event, type="events.bill", key="number"):
        number: int

    class DetailedBill(Bill, version=2): ...

    class Refund(Order): ...

    class Other(Bill, type="events.other", version=4, key="total"):
        total: int

    identities = [
        (cls.__event_type__, cls.__event_version__, cls.__event_key__)
        for cls in (OrderV2, OrderV3, DetailedBill, Refund, Other)
    ]
    assert identities == [
        ("order", 2, "number"),
        ("order", 3, "number"),
        ("events.bill", 2, "number"),
        ("refund", 1, "number"),
        ("events.other", 4, "total"),
    ]


def test_a_version_of_what_may_be_no_event_of_its_own_is_asked_about() -> None:
    class Base(Event):
        tenant: str

    with pytest.raises(ConfigurationError, match=r"class Paid: version=2 of which type\? Give type='base' for"):

        class Paid(Base, version=2): ...


@pytest.mark.parametrize("name", ["Größe", "注文", "OrderÇa"])
def test_letters_outside_ascii_never_vanish_from_a_type(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"class {name}: its name has letters that a type cannot have; give"):
        type(name, (Event,), {"__annotations__": {}})
    given: Any = type(name, (Event,), {"__annotations__": {}}, type=f"events.size.{len(name)}")
    assert given.__event_type__ == f"events.size.{len(name)}"


class NoJson: ...


@pytest.mark.parametrize(
    ("kind", "config"),
    [(NoJson, {}), (Callable[[int], int], {}), (list[NoJson], {"arbitrary_types_allowed": True})],
    ids=["unknown", "function", "arbitrary"],
)
def test_a_field_without_a_json_form_is_refused_at_import_in_one_line(kind: Any, config: dict[str, Any]) -> None:
    body = {"__annotations__": {"fine": int, "thing": kind}, "model_config": config, "__module__": __name__}

    with pytest.raises(ConfigurationError, match=r"^class Odd: field 'thing' has no JSON form: [^\n]+$"):
        type("Odd", (Event,), body)


def test_a_field_of_a_class_that_is_still_to_come_is_allowed() -> None:
    class Shipped(Event, type="shipped"):
        parcel: "Parcel"
        known: ClassVar[type] = NoJson

    class Parcel(BaseModel):
        weight: float

    Shipped.model_rebuild()

    assert Shipped.model_validate({"parcel": {"weight": 1}}).parcel == Parcel(weight=1)


def test_building_an_event_names_what_is_missing() -> None:
    with pytest.raises(ValidationError, match=r"order_id\n  Field required"):
        OrderCreated()  # type: ignore[call-arg]


def test_building_an_event_refuses_unknown_fields_and_reading_one_ignores_them() -> None:
    with pytest.raises(ValidationError, match="surprise"):
        OrderCreated(order_id="o-1", surprise=1)  # type: ignore[call-arg]

    event = decode(decoder_for(OrderCreated), a_message(b'{"order_id": "o-1", "surprise": 1}'))

    assert event == OrderCreated(order_id="o-1")


def test_what_is_encoded_decodes_to_an_equal_event() -> None:
    event = OrderCreated(order_id="ö-1", total=0.1)

    assert decode(decoder_for(OrderCreated), a_message(encode(event))) == event


@pytest.mark.parametrize(
    ("body", "changes", "fault"),
    [
        (b"not json", {}, "JSON"),
        (b'{"total": "x"}', {}, "order_id: Field required"),
        (b'{"order_id": "o", "total": NaN}', {}, "total"),
        (b"\xff\xfe", {}, "JSON"),
        (b"", {}, "JSON"),
        (b"{}", {"content_type": "application/x-python-serialize"}, "content type"),
        (b"{}", {"content_encoding": "br"}, "content encoding"),
        (b"{}", {"content_encoding": "gzip"}, "cannot be unpacked"),
        (b"[" * 100_000, {}, "JSON"),
    ],
)
def test_a_body_that_is_no_such_event_is_unreadable_and_says_why(
    body: bytes, changes: dict[str, str], fault: str
) -> None:
    with pytest.raises(Unreadable, match=fault):
        decode(decoder_for(OrderCreated), a_message(body, **changes))


def test_what_is_said_of_an_unreadable_body_never_quotes_it() -> None:
    with pytest.raises(Unreadable) as caught:
        decode(decoder_for(OrderCreated), a_message(b'{"order_id": {"card": "4111-canary"}}'))

    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("body", [b"[1]", b'"x"', b"3", b"null"])
def test_a_dict_handler_takes_objects_alone(body: bytes) -> None:
    with pytest.raises(Unreadable, match="not an object"):
        decode(decoder_for(dict), a_message(body))


def test_a_bytes_handler_takes_any_body_of_any_content_type() -> None:
    message = a_message(b"\x00\xff", content_type="image/png", content_encoding="gzip")

    assert decode(decoder_for(bytes), message) == b"\x00\xff"


def test_a_field_without_a_json_form_is_a_publish_error_that_names_the_class() -> None:
    class Odd(Event):
        thing: object

    with pytest.raises(PublishError, match="Odd"):
        encode(Odd(thing=object()))


@pytest.mark.parametrize("year", [1, 1969, 2107, 9999])
def test_an_event_of_a_time_for_which_amqp_has_no_form_is_sent_without_the_property(year: int) -> None:
    time = NOON.replace(year=year)

    message = to_message(Envelope(some_metadata(time=time), b"{}"), exchange="events")

    assert pack(message)
    assert (message.timestamp, message.headers[headers.EVENT_TIME]) == (None, time.isoformat())


def test_sealing_gives_an_event_its_id_key_and_correlation() -> None:
    metadata = seal(OrderCreated(order_id="o-7"), source="shop", now=NOON).metadata

    assert uuid.UUID(metadata.event_id).version == 7
    assert metadata.correlation_id == metadata.event_id
    assert (metadata.key, metadata.version, metadata.source, metadata.causation_id) == ("o-7", 2, "shop", None)


def test_an_event_published_while_another_is_handled_names_its_cause() -> None:
    cause = some_metadata(event_id="c", correlation_id="flow", traceparent="00-a-b-01")

    metadata = seal(OrderCreated(order_id="o"), source="s", cause=cause).metadata

    assert (metadata.causation_id, metadata.correlation_id, metadata.traceparent) == ("c", "flow", "00-a-b-01")


def test_metadata_survives_the_wire() -> None:
    cause = some_metadata(correlation_id="f", traceparent="t")
    envelope = seal(OrderCreated(order_id="o"), source="s", cause=cause, caused_by="billing.charge")

    message = to_message(envelope, exchange="events")

    assert read_metadata(message, datetime.now(UTC)) == envelope.metadata
    assert message.message_id != envelope.metadata.event_id


def test_each_publish_of_one_event_has_a_message_id_of_its_own() -> None:
    envelope = seal(OrderCreated(order_id="o"), source="s")

    assert to_message(envelope, exchange="e").message_id != to_message(envelope, exchange="e").message_id


def test_a_foreign_message_is_named_by_type_or_routing_key_and_known_by_id_or_digest() -> None:
    with_all = read_metadata(a_message(headers={}), NOON)
    with_neither = read_metadata(a_message(type=None, message_id=None), NOON)

    assert (with_all.event_id, with_all.event_type) == ("m-1", "order.created")
    assert with_neither.event_id.startswith("sha256:")
    assert with_neither.event_type == "order.created"
    assert with_neither.time == NOON


@pytest.mark.parametrize("forged", [-1, 0, True, "x", "9" * 30, 2**62, None, [1], {"a": 1}, 1.5])
def test_a_forged_attempt_counts_as_the_first(forged: object) -> None:
    assert read_history(a_message(headers={headers.ATTEMPT: forged})).attempt == 1


@pytest.mark.parametrize("number", [42, 0, -7, 2**63])
def test_ids_and_keys_that_are_numbers_are_taken_as_text(number: int) -> None:
    carried = {headers.EVENT_ID: number, headers.EVENT_KEY: number, headers.CAUSATION_ID: number}
    incoming = read_incoming(a_message(headers=carried, message_id=None), NOON)

    metadata = incoming.metadata
    assert (metadata.event_id, metadata.key, metadata.causation_id) == (str(number),) * 3
    assert incoming.has_id


@pytest.mark.parametrize("value", [True, 2**70, "", None, b"7", [7]])
def test_what_cannot_be_an_id_is_none(value: object) -> None:
    assert not read_incoming(a_message(headers={headers.EVENT_ID: value}, message_id=None), NOON).has_id


@pytest.mark.parametrize(
    "changes", [{"type": "other"}, {"routing_key": "other"}, {"app_id": "other"}, {"body": b"other"}]
)
def test_a_guessed_id_holds_all_that_makes_a_message_another_event(changes: dict[str, Any]) -> None:
    same: dict[str, Any] = {"body": b"{}", "message_id": None, "app_id": "shop"}

    ids = {read_metadata(a_message(**{**same, **change}), NOON).event_id for change in ({}, {}, changes)}

    assert len(ids) == 2


def test_headers_of_other_names_hold_id_and_type_where_they_are_named() -> None:
    names = Names(id=("x-id", "Acme.MessageId"), type=("__TypeId__",))
    theirs = a_message(headers={"Acme.MessageId": 7, "__TypeId__": "com.acme.Order"}, message_id="m-1", type="t")
    ours = a_message(headers={headers.EVENT_ID: "e-1", "x-id": "x", "__TypeId__": "com.acme.Order"})
    plain = a_message()

    read = [read_metadata(message, NOON, names) for message in (theirs, ours, plain)]

    assert [(one.event_id, one.event_type) for one in read] == [
        ("7", "com.acme.Order"),
        ("e-1", "order.created"),
        ("m-1", "order.created"),
    ]


@given(
    st.dictionaries(
        st.sampled_from([v for k, v in vars(headers).items() if k.isupper() and isinstance(v, str)]),
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(),
            st.floats(),
            st.text(),
            st.binary(),
            st.lists(st.integers()),
            st.datetimes(),
        ),
    )
)
def test_no_header_value_can_break_the_reading(hostile: dict[str, object]) -> None:
    message = a_message(headers=hostile)

    assert read_metadata(message, NOON).event_id
    assert read_history(message).attempt >= 1


def test_where_a_message_came_from_survives_the_delay_ladder() -> None:
    delayed = a_message(
        exchange="holdfast.delays.00",
        routing_key="queue.q",
        headers={headers.EXCHANGE: "events", headers.ROUTING_KEY: "order.created"},
        type=None,
    )

    assert origin(delayed) == ("events", "order.created")
    assert read_metadata(delayed, NOON).event_type == "order.created"


def test_uuid7_sorts_by_time() -> None:
    ids = [uuid7(milliseconds * 1_000_000) for milliseconds in (1, 2, 70_000, 2**40)]

    assert ids == sorted(ids)
    assert all(uuid.UUID(text).version == 7 and uuid.UUID(text).variant == uuid.RFC_4122 for text in ids)


@given(st.text(), st.text(), st.integers())
def test_a_derived_id_is_a_uuid5(event_id: str, handler: str, position: int) -> None:
    """Whatever has been published keeps its id."""
    space = uuid.UUID("6ed1a2f5-0bb8-5d0c-9a3f-1f6a52f0c0de")

    assert derived_id(event_id, handler, position) == str(uuid.uuid5(space, f"{event_id}\0{handler}\0{position}"))


def test_derived_ids_are_the_same_again_and_differ_by_event_handler_and_position() -> None:
    assert derived_id("e", "h", 0) == derived_id("e", "h", 0)
    assert (
        len({derived_id("e", "h", 0), derived_id("f", "h", 0), derived_id("e", "g", 0), derived_id("e", "h", 1)}) == 4
    )


def test_a_field_travels_under_its_alias_and_is_read_under_it() -> None:
    class Shipped(Event, type="aliased.shipped"):
        order_id: str = Field(alias="orderId")

    body = encode(Shipped(orderId="o-1"))

    assert body == b'{"orderId":"o-1"}'
    assert decode(decoder_for(Shipped), Message(body)) == Shipped(orderId="o-1")


class Stripped(Event, type="stripped"):
    name: str

    @field_validator("name", mode="before")
    @classmethod
    def strip(cls, value: Any) -> Any:
        return value.strip()


def test_whatever_a_validator_of_the_user_s_raises_the_body_is_unreadable() -> None:
    with pytest.raises(Unreadable, match="a validator of the event raised AttributeError"):
        decode(decoder_for(Stripped), a_message(b'{"name": 3}'))


class Measure(BaseModel):
    """A plain model, which allows infinity as pydantic does unless told otherwise."""

    value: float
    note: str | None = None


@dataclass
class Reading:
    value: float


class Measured(Event, type="measured"):
    first: Measure
    more: tuple[Measure, ...] = ()
    by_name: dict[str, float | None] | None = None
    reading: Reading | None = None
    anything: Any = None


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("path", ["first.value", "more.1.value", "by_name.a", "reading.value", "anything.0.x"])
def test_infinity_below_the_event_itself_is_refused_by_its_name(path: str, number: float) -> None:
    made: dict[str, Any] = {
        "first.value": {"first": Measure(value=number)},
        "more.1.value": {"more": (Measure(value=1), Measure(value=number))},
        "by_name.a": {"by_name": {"a": number}},
        "reading.value": {"reading": Reading(number)},
        "anything.0.x": {"anything": [{"x": number}]},
    }[path]
    event = Measured.model_construct(**{"first": Measure(value=1), "more": (), **made})

    with pytest.raises(PublishError, match=rf"Measured .*: {re.escape(path)} is infinite or not a number"):
        encode(event)


def test_none_below_the_event_itself_is_written() -> None:
    event = Measured(first=Measure(value=1.5), by_name={"a": None})

    assert b'"note":null' in encode(event)


def test_an_event_whose_key_field_holds_none_has_no_key() -> None:
    class Moved(Event, type="events.moved", key="shelf"):
        shelf: str | None = None

    keys = [seal(Moved(shelf=shelf), source="shop").metadata.key for shelf in (None, "None")]

    assert keys == [None, "None"]
