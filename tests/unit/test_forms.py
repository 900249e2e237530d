"""What an event class writes it reads again as the same value, or it is refused at import."""

import enum
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, TypeVar
from uuid import UUID

import pytest
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st
from pydantic import (
    AliasChoices,
    AliasGenerator,
    AliasPath,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    HttpUrl,
    Json,
    PlainSerializer,
    SecretBytes,
    SecretStr,
    create_model,
    field_serializer,
    field_validator,
    model_serializer,
)
from pydantic.alias_generators import to_camel

from holdfast import ConfigurationError, Event, PublishError, Worker
from holdfast.events import Message, decode, decoder_for, encode


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Pair(enum.Enum):
    ONE = (1, 2)


class Price(BaseModel):
    amount: Decimal
    currency: str = Field(default="EUR", alias="cur")


class Line(BaseModel):
    article: str = Field(validation_alias=AliasChoices("art", "article"), serialization_alias="art")
    prices: list[Price] = []


class Card(BaseModel):
    number: SecretStr


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")

    number: int


class Tree(BaseModel):
    value: int
    left: "Tree | None" = None
    right: "Tree | None" = None


T = TypeVar("T")


class Box(BaseModel, Generic[T]):
    content: T


def an_event(**fields: Any) -> type[Event]:
    return create_model("Formed", __base__=Event, __cls_kwargs__={"type": "formed"}, **fields)


KEPT: dict[str, Any] = {
    "plain": (int, ...),
    "optional": (Decimal | None, None),
    "nested": (Line, ...),
    "nested in lists": (list[dict[str, Line]], ...),
    "recursive": (Tree, ...),
    "generic": (Box[Price], ...),
    "alias": (int, Field(alias="camelCase")),
    "one of the aliases": (int, Field(validation_alias=AliasChoices("b", "a"), serialization_alias="a")),
    "enum": (Colour, ...),
    "literal": (Literal["a", 1], ...),
    "date or datetime": (date | datetime, ...),
    "number or text": (int | str, ...),
    "url": (HttpUrl, ...),
    "pattern": (str, Field(pattern="^[A-Z]{3}$")),
    "limits": (int, Field(gt=10_000, multiple_of=7)),
    "long": (str, Field(min_length=40)),
    "in the future": (Annotated[date, Field(gt=date(2500, 1, 1))], ...),
    "text of a number": (Annotated[int, PlainSerializer(str, return_type=str)], ...),
    "anything": (Any, ...),
    "no sample": (Annotated[str, Field(pattern="^ORD-[0-9]{7}-X$")], ...),
}

REFUSED: dict[str, tuple[Any, str]] = {
    "secret": ((SecretStr, ...), "read as another value than was written: SecretStr"),
    "secret bytes": ((SecretBytes, ...), "read as another value"),
    "secret with a default": ((SecretStr | None, None), "read as another value"),
    "secret in a list": ((list[SecretStr], ...), "read as another value"),
    "secret in a model": ((Card, ...), "read as another value"),
    "secret in a model in a dict": ((dict[str, list[Card]], ...), "read as another value"),
    "secret in a generic model": ((Box[SecretStr], ...), "read as another value"),
    "json": ((Json[int], ...), "cannot be read as it was written"),
    "any json": ((Json, ...), "cannot be read as it was written"),
    "written under another name": ((int, Field(serialization_alias="b")), "field' cannot be read as it was written"),
    "read under another name": ((int, Field(validation_alias="b")), "b' cannot be read as it was written"),
    "optional, under another name": ((int, Field(default=3, validation_alias="b")), "read as another value"),
    "read from within": ((int, Field(validation_alias=AliasPath("b", 0))), "cannot be read"),
    "left out": ((int, Field(exclude=True)), "cannot be read as it was written: Field required"),
    "left out, with a default": (
        (int, Field(default=3, exclude=True)),
        "read as another value than was written: 7 as 3",
    ),
    "text or decimal": ((Decimal | str, ...), "read as another value"),
    "text or bytes": ((str | bytes, ...), "read as another value"),
    "set or list": ((set[int] | list[int], ...), "read as another value"),
    "keys of two parts": ((dict[tuple[int, int], str], ...), "cannot be read"),
    "members that are tuples": ((Pair, ...), "cannot be read"),
    "changed on writing": ((Annotated[int, PlainSerializer(lambda value: value + 1)], ...), "7 as 8"),
    "changed on reading": ((Annotated[str, BeforeValidator(lambda text: text + "!")], ...), "'a!' as 'a!!'"),
    "extra fields in a model": ((Open, ...), "read as another value"),
    "extra fields in a dict": ((dict[int, Open], ...), "read as another value"),
    "extra fields in a list": ((list[Open], ...), "read as another value"),
}


@pytest.mark.parametrize("field", KEPT.values(), ids=KEPT)
def test_a_class_that_reads_what_it_writes_is_accepted(field: Any) -> None:
    assert an_event(field=field).__event_type__ == "formed"


@pytest.mark.parametrize(("field", "fault"), REFUSED.values(), ids=REFUSED)
def test_a_field_that_is_not_read_as_it_was_written_is_refused_at_import(field: Any, fault: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^class Formed: field '.*{fault}") as refused:
        an_event(field=field)
    assert "\n" not in str(refused.value)


def test_serializers_and_aliases_of_a_whole_class_are_compared_too() -> None:
    with pytest.raises(ConfigurationError, match="field 'total' is read as another value"):

        class Rounded(Event, type="forms.rounded"):
            total: float

            @field_serializer("total")
            def whole(self, total: float) -> int:
                return int(total)

    with pytest.raises(ConfigurationError, match="cannot be read as it was written"):

        class Wrapped(Event, type="forms.wrapped"):
            order: str

            @model_serializer
            def wrapped(self) -> dict[str, Any]:
                return {"data": {"order": self.order}}

    with pytest.raises(ConfigurationError, match="cannot be read as it was written"):

        class Camel(Event, type="forms.camel"):
            model_config = ConfigDict(alias_generator=AliasGenerator(serialization_alias=to_camel))

            order_id: str

    class Both(Event, type="forms.both"):
        model_config = ConfigDict(alias_generator=to_camel)

        order_id: str

    assert encode(Both(orderId="o-1")) == b'{"orderId":"o-1"}'  # type: ignore[call-arg]


def test_a_class_that_is_completed_later_is_compared_at_the_start() -> None:
    class Paid(Event, type="forms.paid"):
        card: "Later"

    class Later(BaseModel):
        number: SecretStr

    Paid.model_rebuild()
    worker = Worker("w")
    worker.handler(Paid)(handle)

    with pytest.raises(ConfigurationError, match="class Paid: field 'card' is read as another value"):
        worker.selected()


async def handle(event: Any) -> None: ...


def test_what_a_handler_publishes_is_compared_at_the_start_too() -> None:
    class Refund(Event, type="forms.refund"):
        card: "Later"

    class Later(BaseModel):
        number: SecretStr

    Refund.model_rebuild()
    worker = Worker("w")
    worker.handler("order.*", publishes=(Refund,))(handle)

    with pytest.raises(ConfigurationError, match="class Refund: field 'card' is read as another value"):
        worker.selected()


def test_validators_of_the_users_that_take_no_sample_are_left_alone() -> None:
    class Checked(Event, type="forms.checked"):
        order: str
        card: SecretStr | None = None

        @field_validator("order")
        @classmethod
        def known(cls, order: str) -> str:
            raise OSError("no database here")

    assert Checked.__event_type__ == "forms.checked"


def test_an_event_that_keeps_extra_fields_reads_them_back() -> None:
    class Free(Event, type="forms.free", extra="allow"):
        order: str

    event = Free(order="o-1", tenant="blue")  # type: ignore[call-arg]

    again = decode(decoder_for(Free), Message(encode(event), content_type="application/json"))

    assert again == event and again.model_extra == {"tenant": "blue"}


# Values of fields, to be combined into classes.
FINITE = st.floats(allow_nan=False, allow_infinity=False)
MOMENTS = st.datetimes(timezones=st.none() | st.just(datetime.now().astimezone().tzinfo))
KINDS: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (int, st.integers(-(2**60), 2**60)),
    (float, FINITE),
    (bool, st.booleans()),
    (str, st.text(max_size=8)),
    (Decimal, st.decimals(allow_nan=False, allow_infinity=False)),
    (bytes, st.text(max_size=8).map(str.encode)),
    (datetime, MOMENTS),
    (date, st.dates()),
    (time, st.times()),
    (timedelta, st.timedeltas(timedelta(-1000), timedelta(1000))),
    (UUID, st.uuids()),
    (Colour, st.sampled_from(Colour)),
    (Literal["a", 1, True], st.sampled_from(["a", 1, True])),
    (Price, st.builds(Price, amount=st.decimals(-1000, 1000, places=2), cur=st.text(max_size=4))),
    (Line, st.builds(Line, art=st.text(max_size=4))),
    (SecretStr, st.text(max_size=4).map(SecretStr)),
    (Json[int], st.integers().map(str)),
    (Pair, st.sampled_from(Pair)),
    (Open, st.builds(Open, number=st.integers(0, 9), more=st.integers(0, 9))),
]
ALIASES: list[dict[str, Any]] = [
    {},
    {},
    {"alias": "other"},
    {"serialization_alias": "other"},
    {"validation_alias": "other"},
    {"validation_alias": AliasChoices("third", "other"), "serialization_alias": "other"},
    {"exclude": True},
]


def hashable(kind: Any) -> bool:
    return kind not in (Price, Line, Open)


@st.composite
def kinds(draw: st.DrawFn, depth: int = 2) -> tuple[Any, st.SearchStrategy[Any]]:
    """An annotation, and values that it takes."""
    kind, values = draw(st.sampled_from(KINDS))
    match draw(st.sampled_from(["plain", "plain", "optional", "list", "set", "dict", "tuple", "union", "box"])):
        case "optional":
            return kind | None, values | st.none()
        case "list" if depth:
            kind, values = draw(kinds(depth - 1))
            return list[kind], st.lists(values, max_size=2)  # type: ignore[valid-type]
        case "set" if hashable(kind):
            return set[kind], st.sets(values, max_size=2)
        case "dict" if hashable(kind) and kind is not Json[int]:
            inner, more = draw(kinds(depth - 1)) if depth else (int, st.integers())
            return dict[kind, inner], st.dictionaries(values, more, max_size=2)  # type: ignore[valid-type]
        case "tuple":
            return tuple[kind, int], st.tuples(values, st.integers(0, 9))
        case "union":
            other, more = draw(st.sampled_from(KINDS))
            return kind | other, values | more
        case "box" if depth:
            inner, more = draw(kinds(depth - 1))
            box = Box[inner]  # type: ignore[valid-type]
            return box, more.map(lambda content: {"content": content})
        case _:
            return kind, values


@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_whatever_the_fields_a_class_is_refused_or_reads_what_it_wrote(data: st.DataObject) -> None:
    names = ("first", "second")[: data.draw(st.integers(1, 2))]
    aliases = {"first": data.draw(st.sampled_from(ALIASES))}
    fields = {name: (*data.draw(kinds()), aliases.get(name, {})) for name in names}
    try:
        cls = an_event(**{name: (kind, Field(**options)) for name, (kind, _, options) in fields.items()})
    except ConfigurationError:
        event("refused")
        return
    given_values = {name: data.draw(values, label=name) for name, (_, values, _) in fields.items()}
    try:
        made = cls.__pydantic_validator__.validate_python(given_values, by_name=True, by_alias=False)
        body = encode(made)
    except (ValueError, PublishError):
        assume(False)
    event("accepted")

    again = decode(decoder_for(cls), Message(body, content_type="application/json"))

    assert again == made, body
