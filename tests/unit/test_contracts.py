"""What a change of an event means: each rule, alone, in nested places, and checked against what is really readable."""

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, TypeAlias

import pytest
from builders import some_settings
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from pages import ROOT
from pydantic import BaseModel, Field, create_model

from holdfast import ConfigurationError, Event, Existing, Unreadable, Worker
from holdfast.contracts import RULES, Finding, asyncapi, catalogue_of, compare, schema_of
from holdfast.contracts.fit import Fit
from holdfast.events import Message, decode, decoder_for, encode

GONE = object()


def an_event(**fields: Any) -> type[Event]:
    """A class with these fields: an annotation, or an annotation and its default."""
    made = {name: field if isinstance(field, tuple) else (field, ...) for name, field in fields.items()}
    return create_model("Changing", __base__=Event, __cls_kwargs__={"type": "changing"}, **made)


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Finding]:
    return compare(schema_of(an_event(**old)), schema_of(an_event(**new)))


def text(most: int | None = None, pattern: str | None = None) -> Any:
    return Annotated[str, Field(max_length=most, pattern=pattern)]


AB, A, B = Literal["a", "b"], Literal["a"], Literal["b"]

EXAMPLES: list[tuple[str, Any, Any]] = [
    ("an optional field added", GONE, (str, "")),
    ("an optional field removed", (str, ""), GONE),
    ("a required field added", GONE, str),
    ("a required field removed", str, GONE),
    ("a field made required", (str, ""), str),
    ("a field made optional", str, (str, "")),
    ("a type widened", int, float),
    ("a type widened", str, str | None),
    ("a type widened", list[int], list[int | str]),
    ("a type widened", int, Any),
    ("a type widened", int, Decimal),
    ("a type widened", AB, str),
    ("a type narrowed", float, int),
    ("a type narrowed", str | None, str),
    ("a type narrowed", str, AB),
    ("a type narrowed", Any, dict[str, int]),
    ("a type changed", int, str),
    ("a type changed", list[int], dict[str, int]),
    ("a type changed", str, bool),
    ("an enum member added", A, AB),
    ("an enum member removed", AB, A),
    ("enum members exchanged", A, B),
    ("a limit loosened", text(10), text(20)),
    ("a limit loosened", text(pattern="a+"), str),
    ("a limit loosened", datetime, str),
    ("a limit loosened", Annotated[int, Field(gt=0)], Annotated[int, Field(ge=0)]),
    ("a limit loosened", Annotated[list[int], Field(min_length=2)], list[int]),
    ("a limit loosened", set[int], list[int]),
    ("a limit tightened", text(20), text(10)),
    ("a limit tightened", str, text(pattern="a+")),
    ("a limit tightened", Annotated[int, Field(le=9)], Annotated[int, Field(lt=9)]),
    ("a limit tightened", dict[str, int], dict[int, int]),
    ("a limit tightened", Decimal, Annotated[Decimal, Field(max_digits=5)]),
    ("a limit changed", datetime, date),
    ("a limit changed", text(pattern="a+"), text(pattern="b+")),
    ("something that cannot be compared", Annotated[str, Field(json_schema_extra={"not": {"const": "x"}})],
     Annotated[str, Field(json_schema_extra={"not": {"const": "y"}})]),
]  # fmt: skip


@pytest.mark.parametrize(("change", "old", "new"), EXAMPLES, ids=lambda value: value if isinstance(value, str) else "")
def test_each_change_is_named_with_whom_it_hurts(change: str, old: Any, new: Any) -> None:
    before, after = ({"order": str} | ({} if field is GONE else {"it": field}) for field in (old, new))

    [found] = changes(before, after)

    assert (found.rule.change, found.field.rstrip("[]")) == (change, "it")
    [rule] = [rule for rule in RULES if rule.change == change]
    assert found.rule.hurts == rule.hurts


def test_every_rule_about_a_field_has_an_example() -> None:
    about_versions = {"a version added", "a version removed"}  # tests of the command have these

    assert {change for change, _, _ in EXAMPLES} | about_versions == {rule.change for rule in RULES}


@pytest.mark.parametrize(("change", "old", "new"), EXAMPLES, ids=lambda value: value if isinstance(value, str) else "")
def test_a_change_taken_back_hurts_the_others(change: str, old: Any, new: Any) -> None:
    before, after = ({"order": str} | ({} if field is GONE else {"it": field}) for field in (old, new))

    [there], [back] = changes(before, after), changes(after, before)

    other = {"producers": "consumers", "consumers": "producers"}
    assert {other[side] for side in there.rule.hurts} == set(back.rule.hurts)


def rules_table() -> str:
    """The rules as a Markdown table."""
    rows = ["| change | example | for producers | for consumers |", "|---|---|---|---|"]
    for one in RULES:
        marks = ["**breaks**" if side in one.hurts else "fine" for side in ("producers", "consumers")]
        rows.append(f"| {one.change} | {one.example.replace('|', chr(92) + '|')} | {marks[0]} | {marks[1]} |")
    return "\n".join(rows)


def test_the_page_has_the_table_of_the_rules() -> None:
    told = (ROOT / "docs" / "events.md").read_text().split("<!-- rules -->")[1].split("<!-- /rules -->")[0].strip()

    assert told == rules_table()


class Line(BaseModel):
    article: str
    count: int


class NewLine(BaseModel):
    article: str
    count: int | None


class Tree(BaseModel):
    value: int
    below: "list[Tree]" = []


class NewTree(BaseModel):
    value: float
    below: "list[NewTree]" = []


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (list[Line], list[NewLine], "field it[].count: a type widened: from integer to integer or null"),
        (dict[str, Line], dict[str, NewLine], "field it{}.count: a type widened: from integer to integer or null"),
        (Line | None, NewLine | None, "field it.count: a type widened: from integer to integer or null"),
        (tuple[int, str], tuple[int, int], "field it[1]: a type changed: from string to integer"),
        (Tree, NewTree, "field it.value: a type widened: from integer to number"),
    ],
)
def test_a_change_is_found_where_it_is(old: Any, new: Any, told: str) -> None:
    found = changes({"it": old}, {"it": new})

    assert [str(finding) for finding in found] == [told]


def test_what_is_only_said_differently_is_no_change() -> None:
    old = {"a": int, "b": (str, Field("x", description="before", title="B"))}
    new = {"b": (str, Field("y", description="after")), "a": int}

    assert changes(old, new) == []


def test_the_order_of_fields_does_not_change_the_schema() -> None:
    one, other = schema_of(an_event(a=int, b=str)), schema_of(an_event(b=str, a=int))

    assert json.dumps(one["properties"], sort_keys=True) == json.dumps(other["properties"], sort_keys=True)
    assert compare(one, other) == []


@pytest.mark.parametrize("limit", [{"ge": datetime(2020, 1, 1, tzinfo=UTC)}, {"lt": datetime(2030, 1, 1, tzinfo=UTC)}])
def test_limits_for_which_json_schema_has_no_word_count_too(limit: dict[str, Any]) -> None:
    [found] = changes({"it": datetime}, {"it": Annotated[datetime, Field(**limit)]})

    assert found.rule.change == "a limit tightened"


# What may stand in a field, and how to make values of it.
NUMBERS = st.integers(-50, 50)
WORDS = st.text(max_size=12)
KINDS: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "int": (int, NUMBERS),
    "positive": (Annotated[int, Field(gt=0)], st.integers(1, 50)),
    "natural": (Annotated[int, Field(ge=0, le=20)], st.integers(0, 20)),
    "float": (float, st.floats(allow_nan=False, allow_infinity=False)),
    "decimal": (Decimal, st.decimals(allow_nan=False, allow_infinity=False)),
    "price": (Annotated[Decimal, Field(max_digits=6, decimal_places=2)], st.decimals(0, 999, places=2)),
    "bool": (bool, st.booleans()),
    "str": (str, WORDS),
    "short": (text(5), st.text(max_size=5)),
    "shorter": (text(3), st.text(max_size=3)),
    "letters": (text(pattern="^[a-c]+$"), st.text("abc", min_size=1)),
    "datetime": (datetime, st.datetimes(timezones=st.just(UTC))),
    "date": (date, st.dates()),
    "a": (A, st.just("a")),
    "ab": (AB, st.sampled_from("ab")),
    "one or a": (Literal[1, "a"], st.sampled_from([1, "a"])),
    "any": (Any, NUMBERS | WORDS | st.none()),
    "dict": (dict[str, int], st.dictionaries(WORDS, NUMBERS)),
    "by number": (dict[int, int], st.dictionaries(NUMBERS, NUMBERS)),
    "free": (dict[str, Any], st.dictionaries(WORDS, NUMBERS | WORDS)),
    "line": (Line, st.builds(Line, article=WORDS, count=NUMBERS)),
    "new line": (NewLine, st.builds(NewLine, article=WORDS, count=NUMBERS | st.none())),
    "tree": (Tree, st.builds(Tree, value=NUMBERS)),
    "new tree": (NewTree, st.builds(NewTree, value=NUMBERS)),
    "set": (set[int], st.sets(NUMBERS)),
    "pair": (tuple[int, str], st.tuples(NUMBERS, WORDS)),
}


# Kinds that are like enough for a change from one to another to be a question.
FAMILIES = (
    ("int", "positive", "natural", "float", "decimal", "price"),
    ("str", "short", "shorter", "letters", "a", "ab", "one or a"),
    ("str", "decimal", "datetime", "date", "ab"),
    ("dict", "by number", "free", "line", "any"),
    ("line", "new line", "tree", "new tree", "free"),
    ("set", "pair", "any"),
    tuple(KINDS),
)
Made: TypeAlias = dict[str, tuple[Any, st.SearchStrategy[Any], bool]]


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Made, Made]:
    """Two sets of fields, the second more or less like the first: each field is changed, new or gone."""
    old: Made = {}
    new: Made = {}
    for name in ("a", "b")[: draw(st.integers(1, 2))]:
        family = draw(st.sampled_from(FAMILIES))
        forms = ["plain", "plain", draw(st.sampled_from(["optional", "list", "union"]))]
        for made in (old, new):
            if draw(st.integers(0, 5)):
                made[name] = draw(fields(family, forms))
    return old, new


@st.composite
def fields(draw: st.DrawFn, family: tuple[str, ...], forms: list[str]) -> tuple[Any, st.SearchStrategy[Any], bool]:
    """An annotation, its values, and whether it has a default."""
    kind, values = KINDS[draw(st.sampled_from(family))]
    match draw(st.sampled_from(forms)):
        case "optional":
            kind, values = kind | None, values | st.none()
        case "list":
            kind, values = list[kind], st.lists(values, max_size=3)  # type: ignore[valid-type]
        case "union":
            other, more = KINDS[draw(st.sampled_from(family))]
            kind, values = kind | other, values | more
    return kind, values, draw(st.booleans())


def a_class(made: Made) -> type[Event]:
    return an_event(**{name: (kind, None) if optional else kind for name, (kind, _, optional) in made.items()})


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(pairs(), st.data())
def test_what_is_called_compatible_is_readable(
    pair: tuple[dict[str, Any], dict[str, Any]], data: st.DataObject
) -> None:
    old, new = pair
    try:
        before, after = a_class(old), a_class(new)
    except ConfigurationError:
        reject()  # its own class cannot read what it writes
    ways = [(old, before, after), (new, after, before)]

    for written, writer, reader in ways:
        if Fit(schema_of(writer), schema_of(reader)).misfits():
            continue
        values = {name: data.draw(values, label=name) for name, (_, values, _) in written.items()}
        body = encode(writer.model_construct(**values))
        try:
            decode(decoder_for(writer), Message(body))
        except Unreadable:
            continue  # what its own class cannot read was no event of it
        decode(decoder_for(reader), Message(body))


def test_two_classes_of_one_version_that_differ_are_told() -> None:
    worker = Worker("w", settings=some_settings())
    for number, kind in enumerate((int, str)):
        worker.handler(an_event(it=kind), name=f"h{number}")(lambda event: None)

    with pytest.raises(ConfigurationError, match="changing version 1 is two different things"):
        catalogue_of(worker)


def test_handlers_of_one_type_on_several_exchanges_have_a_channel_each() -> None:
    worker = Worker("shop", settings=some_settings(broker={"url": "amqp://host/"}))
    for name, options in {
        "own": {},
        "other": {"exchange": "partner"},
        "adopted": {"queue": Existing("legacy")},
    }.items():
        worker.handler(Listed, name=name, **options)(take_listed)  # type: ignore[arg-type]

    channels = asyncapi(catalogue_of(worker))["channels"]

    amqp = {name: channel["bindings"]["amqp"] for name, channel in channels.items()}
    assert {name: (each["is"], each.get("exchange", each.get("queue"))["name"]) for name, each in amqp.items()} == {
        "shop.listed": ("routingKey", "events"),
        "shop.listed-of-partner": ("routingKey", "partner"),
        "shop.listed-of-legacy": ("queue", "legacy"),
    }


class Listed(Event, type="shop.listed"):
    number: int


async def take_listed(event: Listed) -> None: ...
