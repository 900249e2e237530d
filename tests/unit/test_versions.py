"""Several versions of one event type: older ones are upcast on the way in, newer ones refused, gaps found at start."""

import asyncio
import math
import subprocess
import sys
from decimal import Decimal
from typing import Any

import pytest
from apps import APPS
from builders import a_message, an_incoming, some_settings

from holdfast import (
    ConfigurationError,
    Event,
    PublishError,
    Unreadable,
    UnsupportedVersion,
    Worker,
    downcast,
    upcast,
)
from holdfast.consumer import HandlerSpec
from holdfast.events import as_published, headers, lineage


class PaidV1(Event, type="bill.paid", version=1):
    order: str
    cents: int


class PaidV2(Event, type="bill.paid", version=2):
    order: str
    amount: Decimal


class Paid(Event, type="bill.paid", version=3):
    order: str
    amount: Decimal
    currency: str


@upcast(PaidV1, PaidV2)
def cents_to_amount(old: PaidV1) -> PaidV2:
    return PaidV2(order=old.order, amount=Decimal(old.cents) / 100)


@upcast(PaidV2, Paid)
def say_the_currency(old: PaidV2) -> dict[str, Any]:
    return {**old.model_dump(), "currency": "EUR"}


@downcast(Paid, PaidV2)
def forget_the_currency(new: Paid) -> PaidV2:
    return PaidV2(order=new.order, amount=new.amount)


@downcast(PaidV2, PaidV1)
def amount_to_cents(new: PaidV2) -> PaidV1:
    return PaidV1(order=new.order, cents=int(new.amount * 100))


def a_handler(*events: type[Event] | str, annotation: Any = Any) -> HandlerSpec:
    worker = Worker("w", settings=some_settings())

    def handle(event: Any) -> None: ...

    handle.__annotations__["event"] = annotation
    worker.handler(*events)(handle)
    [spec] = worker.handlers
    return spec


def read(spec: HandlerSpec, body: bytes, version: Any = None) -> Any:
    told = {} if version is None else {headers.EVENT_VERSION: version}
    message = a_message(body, type="bill.paid", headers=told)
    return spec.read(an_incoming(message))


V1, V2, V3 = b'{"order":"o","cents":250}', b'{"order":"o","amount":2.5}', b'{"order":"o","amount":2.5,"currency":"USD"}'


@pytest.mark.parametrize(
    ("body", "version", "currency"), [(V1, 1, "EUR"), (V1, None, "EUR"), (V2, 2, "EUR"), (V3, 3, "USD")]
)
def test_a_handler_of_the_newest_version_is_given_every_older_one_upcast(
    body: bytes, version: int | None, currency: str
) -> None:
    assert read(a_handler(Paid), body, version) == Paid(order="o", amount=Decimal("2.5"), currency=currency)


def test_a_handler_takes_the_versions_it_declares_others_are_upcast_to_the_nearest() -> None:
    both = a_handler(PaidV2, Paid, annotation=PaidV2 | Paid)

    assert both.events == ("bill.paid",)
    assert [type(read(both, body, version)) for body, version in ((V1, 1), (V2, 2), (V3, 3))] == [PaidV2, PaidV2, Paid]


def test_a_version_newer_than_a_handlers_is_unsupported_though_the_program_knows_it() -> None:
    with pytest.raises(UnsupportedVersion, match="paid version 3 is newer than 2, the newest that handler 'handle' kn"):
        read(a_handler(PaidV2), V3, 3)


def test_a_version_between_two_that_are_known_is_unsupported() -> None:
    class A(Event, type="bill.paid", version=2): ...

    class B(Event, type="bill.paid", version=4): ...

    spec = a_handler(A, B)

    with pytest.raises(UnsupportedVersion, match="version 3 is none of 2, 4, the versions that handler"):
        read(spec, b"{}", 3)


@pytest.mark.parametrize("version", [2, "2", 2.0, "2.0"])
def test_a_version_is_a_whole_number_in_any_form(version: Any) -> None:
    assert read(a_handler(Paid), V2, version) == Paid(order="o", amount=Decimal("2.5"), currency="EUR")


@pytest.mark.parametrize(
    "version", ["v2", "2.1", 2.1, "two", b"2", 0, -1, 10**7, "9" * 300, True, math.nan, math.inf, [2], {"n": 2}, "²"]
)
def test_a_version_that_cannot_be_read_is_unsupported_and_no_guess(version: Any) -> None:
    spec = a_handler(Paid)

    with pytest.raises(UnsupportedVersion, match=r"paid has a version that is no whole number from 1, .* 'handle'"):
        read(spec, V2, version)


@pytest.mark.parametrize("version", [None, ""])
def test_a_header_that_holds_no_version_is_version_1(version: Any) -> None:
    message = a_message(V1, type="bill.paid", headers={headers.EVENT_VERSION: version})

    assert a_handler(Paid).read(an_incoming(message)) == Paid(order="o", amount=Decimal("2.5"), currency="EUR")


def test_what_is_taken_as_a_dict_is_taken_in_a_version_that_cannot_be_read() -> None:
    assert read(a_handler("bill.paid", annotation=dict), b'{"order":"o"}', "v2") == {"order": "o"}


def test_an_older_version_that_nobody_declares_is_read_as_the_oldest_that_is_known() -> None:
    class Only(Event, type="bill.paid", version=5):
        order: str
        cents: int = 0

    assert read(a_handler(Only), V1, 2) == Only(order="o", cents=250)


def test_an_event_named_by_text_is_upcast_to_the_class_of_the_annotation() -> None:
    assert read(a_handler("bill.paid", annotation=Paid), V1, 1).currency == "EUR"


def test_raw_handlers_take_every_version_as_it_is() -> None:
    assert read(a_handler("bill.paid", annotation=dict), V1, 9) == {"order": "o", "cents": 250}


def test_an_upcast_that_fails_makes_the_event_unreadable_its_payload_is_not_quoted() -> None:
    class Old(Event, type="bill.paid", version=1):
        order: str

    class New(Event, type="bill.paid", version=2):
        order: int

    @upcast(Old, New)
    def convert(old: Old) -> dict[str, Any]:
        if old.order == "none":
            raise KeyError("nothing")
        return {"order": old.order}

    spec = a_handler(New)

    with pytest.raises(Unreadable, match=r"the upcast of bill.paid version 1 failed: KeyError: 'nothing'"):
        read(spec, b'{"order": "none"}', 1)
    with pytest.raises(Unreadable, match=r"failed: order: Input should be a valid integer") as fault:
        read(spec, b'{"order": "canary"}', 1)
    assert "canary" not in str(fault.value) and fault.value.__cause__ is None


def test_an_upcast_that_returns_something_else_is_told() -> None:
    class Old(Event, type="bill.paid", version=1): ...

    class New(Event, type="bill.paid", version=2): ...

    @upcast(Old, New)
    def convert(old: Old) -> Old:
        return old

    with pytest.raises(Unreadable, match="convert returned a Old, not a New"):
        read(a_handler(New), b"{}", 1)


def test_a_version_without_a_way_to_the_handlers_is_found_at_start() -> None:
    class Old(Event, type="bill.paid", version=1): ...

    class New(Event, type="bill.paid", version=2): ...

    worker = Worker("w", settings=some_settings())

    @worker.handler(New)
    def handle(event: New) -> None: ...

    with pytest.raises(ConfigurationError, match=r"handler 'handle': .*nothing upcasts version 1.*@upcast\(Old, New\)"):
        asyncio.run(worker.run())


def test_a_chain_with_a_gap_is_found_at_start() -> None:
    class One(Event, type="bill.paid", version=1): ...

    class Two(Event, type="bill.paid", version=2): ...

    class Three(Event, type="bill.paid", version=3): ...

    upcast(One, Two)(lambda old: Two())
    spec = a_handler(Three)

    with pytest.raises(ConfigurationError, match=r"nothing upcasts version 2 to it; write @upcast\(Two, Three\)"):
        spec.prepare({})


def test_a_gap_is_found_at_start_where_python_leaves_asserts_out_too() -> None:
    done = subprocess.run([sys.executable, "-O", APPS / "version_gap.py"], capture_output=True, text=True, check=True)

    assert "nothing upcasts version" in done.stdout


def test_upcasts_may_be_declared_after_the_handler() -> None:
    class Old(Event, type="bill.paid", version=1): ...

    class New(Event, type="bill.paid", version=2):
        order: str = "none"

    spec = a_handler(New)
    upcast(Old, New)(lambda old: New())

    assert read(spec, b"{}", 1) == New()


class OtherType(Event, type="other", version=2): ...


@pytest.mark.parametrize(
    ("declare", "old", "new", "fault"),
    [
        (upcast, Paid, PaidV1, "goes from version 3 to 1; it goes from an older version to a newer"),
        (upcast, Paid, Paid, "goes from version 3 to 3"),
        (downcast, PaidV1, Paid, "it goes from a newer version to an older"),
        (upcast, PaidV1, OtherType, "'bill.paid' and 'other' are two types"),
        (upcast, PaidV1, Paid, "PaidV1 has a upcast to PaidV2 already"),
        (upcast, dict, Paid, "is not an Event class"),
    ],
)
def test_a_cast_that_would_make_a_loop_or_a_fork_is_refused_at_import(
    declare: Any, old: Any, new: Any, fault: str
) -> None:
    with pytest.raises(ConfigurationError, match=fault):
        declare(old, new)(lambda event: event)


def test_a_cast_is_a_plain_function() -> None:
    async def convert(old: PaidV1) -> Paid: ...

    with pytest.raises(ConfigurationError, match="not async def"):
        upcast(PaidV2, Paid)(convert)


def test_a_publisher_told_an_older_version_downcasts_step_by_step() -> None:
    event = Paid(order="o", amount=Decimal("2.5"), currency="EUR")

    assert as_published(event, {"bill.paid": 1}) == PaidV1(order="o", cents=250)
    assert as_published(event, {"bill.paid": 2}) == PaidV2(order="o", amount=Decimal("2.5"))
    assert as_published(event, {"other": 1, "bill.paid": 3}) is event


def test_a_version_without_a_downcast_cannot_be_published() -> None:
    class New(Event, type="bill.paid", version=2): ...

    with pytest.raises(PublishError, match=r"paid version 2 cannot be published as version 1; write @downcast\(New"):
        as_published(New(), {"bill.paid": 1})


def test_a_version_asked_for_that_no_downcast_leads_to_is_reported_at_start() -> None:
    worker = Worker("w", settings=some_settings(publisher={"versions": {"bill.paid": 1, "other": 1}}))

    @worker.handler("x", publishes=(Paid, OtherType))
    def handle(event: dict[str, Any]) -> None: ...

    with pytest.raises(ConfigurationError, match="asks for other version 1, and no @downcast leads from OtherType"):
        asyncio.run(worker.run())


def test_the_lineage_of_a_class_is_what_it_can_be_made_of_and_published_as() -> None:
    assert lineage(Paid) == (PaidV1, PaidV2, Paid)
    assert lineage(PaidV1) == (PaidV1,)
