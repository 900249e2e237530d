"""Annotations are understood or refused, each by itself, at import: one that cannot be resolved hides no other."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, NewType, Optional, Protocol, TypedDict, TypeVar, Union

import pytest
from builders import a_message, an_incoming
from pydantic import BaseModel

import holdfast
from holdfast import ConfigurationError, Event, Settings, Worker
from holdfast.testing import call

if TYPE_CHECKING:
    import nowhere
    from nowhere import Unknown

    from holdfast import Context


class Placed(Event, type="signature.placed"):
    order: str


class Cancelled(Event, type="signature.cancelled"):
    order: str


class Order(BaseModel):
    order: str


@dataclass
class Line:
    order: str


class OrderDict(TypedDict):
    order: str


class HasOrder(Protocol):
    order: str


OrderId = NewType("OrderId", str)
Alias = Placed | Cancelled
AnyEvent = TypeVar("AnyEvent", bound=Event)


def a_worker() -> Worker:
    return Worker("billing", settings=Settings(_env_file=None, broker={"url": "memory://"}))  # type: ignore[arg-type, call-arg]


def registered(function: Callable[..., Any], *events: Any) -> Any:
    worker = a_worker()
    worker.handler(*events, name="charge")(function)
    return worker.handlers[0]


def with_an_unresolved_context(event: bytes, ctx: Context) -> None: ...
def with_an_unresolved_second(event: bytes, ctx: Unknown) -> None: ...
def with_a_second_of_a_module(event: bytes, ctx: nowhere.Context) -> None: ...
def of_mapping(event: Mapping[str, Any]) -> None: ...
def of_mutable_mapping(event: MutableMapping[str, Any]) -> None: ...
def of_dict(event: dict[str, Any], ctx: Context | None = None) -> None: ...
def of_typed_dict(event: OrderDict) -> None: ...
def of_any(event: Any, ctx: holdfast.Context) -> None: ...
def of_object(event: object) -> None: ...
def of_optional(event: Optional[bytes]) -> None: ...  # noqa: UP045
def of_annotated(event: Annotated[bytes, "raw"], ctx: Annotated[Context, "it"]) -> None: ...
def of_a_class(event: Placed) -> None: ...


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (with_an_unresolved_context, bytes),
        (with_an_unresolved_second, bytes),
        (with_a_second_of_a_module, bytes),
        (functools.partial(with_an_unresolved_context), bytes),
        (of_mapping, dict),
        (of_mutable_mapping, dict),
        (of_dict, dict),
        (of_typed_dict, dict),
        (of_any, dict),
        (of_object, dict),
        (of_optional, bytes),
        (of_annotated, bytes),
        (of_a_class, Placed),
        (lambda event: None, dict),
    ],
)
def test_an_event_named_by_text_becomes_what_the_parameter_says(function: Callable[..., Any], kind: type) -> None:
    assert registered(function, "order.*").kinds == {"order.*": (kind,)}


async def test_a_bytes_handler_is_given_bytes_wherever_its_context_is_imported() -> None:
    seen: list[object] = []

    async def handle(event: bytes, ctx: Context) -> None:
        seen.append(event)

    await call(handle, b"\xff")
    spec = registered(handle, "x")

    assert seen == [b"\xff"] and spec.read(an_incoming(a_message(b"\xff", type="x"))) == b"\xff"


def of_str(event: str) -> None: ...
def of_a_model(event: Order, ctx: Context) -> None: ...
def of_a_dataclass(event: Line) -> None: ...
def of_a_list(event: list[Placed]) -> None: ...
def of_a_sequence(event: Sequence[int]) -> None: ...
def of_a_literal(event: Literal["x"]) -> None: ...
def of_a_new_type(event: OrderId) -> None: ...
def of_a_model_or_none(event: Order | None) -> None: ...
def of_an_event_or_str(event: Placed | str) -> None: ...
def of_the_base(event: Event) -> None: ...
def of_dict_or_bytes(event: dict[str, Any] | bytes) -> None: ...
def of_two_events(event: Alias) -> None: ...
def of_union(event: Union[bytes, dict[str, Any]]) -> None: ...  # noqa: UP007


NOT_OURS = (
    "is annotated .*, and 'order.placed' is named by text: that becomes one of your Event classes, a dict or bytes"
)
UNSAID = "nothing says which of them 'order.placed' is"


@pytest.mark.parametrize(
    ("function", "fault"),
    [
        (of_str, NOT_OURS),
        (of_a_model, NOT_OURS),
        (of_a_dataclass, NOT_OURS),
        (of_a_list, NOT_OURS),
        (of_a_sequence, NOT_OURS),
        (of_a_literal, NOT_OURS),
        (of_a_new_type, NOT_OURS),
        (of_a_model_or_none, NOT_OURS),
        (of_an_event_or_str, NOT_OURS),
        (of_the_base, NOT_OURS),
        (of_dict_or_bytes, UNSAID),
        (of_two_events, UNSAID),
        (of_union, UNSAID),
    ],
)
def test_an_annotation_that_no_message_becomes_is_refused_in_one_line(function: Callable[..., Any], fault: str) -> None:
    with pytest.raises(ConfigurationError, match=fault) as refused:
        registered(function, "order.placed")
    assert "\n" not in str(refused.value)


def test_of_a_union_the_name_becomes_what_no_class_stands_for() -> None:
    def either(event: Placed | bytes) -> None: ...

    assert registered(either, Placed, "legacy.*").kinds == {"signature.placed": (Placed,), "legacy.*": (bytes,)}
    assert registered(of_a_class, Placed, "legacy.*").kinds["legacy.*"] == (Placed,)


@pytest.mark.parametrize("function", [of_str, of_a_model, of_a_dataclass, of_a_list, of_dict_or_bytes, of_a_new_type])
def test_an_annotation_that_contradicts_the_event_is_refused(function: Callable[..., Any]) -> None:
    with pytest.raises(ConfigurationError, match="is for Placed, but its first parameter is annotated"):
        registered(function, Placed)


def of_a_protocol(event: HasOrder) -> None: ...
def of_a_variable(event: AnyEvent) -> None: ...


@pytest.mark.parametrize("function", [of_a_protocol, of_a_variable, of_two_events, of_an_event_or_str, of_the_base])
def test_an_annotation_may_be_wider_than_an_event(function: Callable[..., Any]) -> None:
    assert registered(function, Placed).kinds == {"signature.placed": (Placed,)}


def test_events_of_a_function_are_known_in_its_annotations() -> None:
    class Local(Event, type="signature.local"):
        order: str

    def of_a_local_class(event: Local | Placed, ctx: Context) -> None: ...

    assert registered(of_a_local_class, Local).kinds == {"signature.local": (Local,)}


def of_unknown(event: Unknown) -> None: ...
def of_a_broken_expression(event: "1 +") -> None: ...  # type: ignore[valid-type]  # noqa: F722


@pytest.mark.parametrize("function", [of_unknown, of_a_broken_expression])
def test_an_event_annotation_that_cannot_be_resolved_is_refused_in_one_line(function: Callable[..., Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"first parameter cannot be resolved .*; import its names") as refused:
        registered(function, Placed)
    assert "\n" not in str(refused.value)


def context_first(ctx: Context, event: Placed) -> None: ...
def context_first_of_a_module(ctx: holdfast.Context, event: Placed) -> None: ...
def context_first_by_name(ctx, event):  # type: ignore[no-untyped-def]
    ...


def context_alone(ctx: Context) -> None: ...


@pytest.mark.parametrize("function", [context_first, context_first_of_a_module, context_first_by_name, context_alone])
@pytest.mark.parametrize("event", [Placed, "order.placed"])
def test_a_context_before_the_event_is_refused(function: Callable[..., Any], event: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"the event comes first, then the context: \(event, ctx\)"):
        registered(function, event)


def with_a_session(event: Placed, session: Order) -> None: ...
def with_two_events(event: Placed, other: Cancelled) -> None: ...
def with_a_number(event: Placed, retries: int = 3) -> None: ...
def with_a_default(event: Placed, retries=3):  # type: ignore[no-untyped-def]
    ...


@pytest.mark.parametrize(
    ("function", "fault"),
    [
        (with_a_session, "second parameter, 'session', is annotated Order; it is given the Context"),
        (with_two_events, "second parameter, 'other', is annotated Cancelled; it is given the Context"),
        (with_a_number, "second parameter, 'retries', is annotated int; it is given the Context"),
        (with_a_default, "the default of 'retries' would never count"),
    ],
)
def test_a_second_parameter_that_is_not_the_context_is_refused(function: Callable[..., Any], fault: str) -> None:
    with pytest.raises(ConfigurationError, match=fault):
        registered(function, Placed)


class ByCall:
    def __call__(self, event: bytes, ctx: Context) -> None: ...

    def method(self, event: bytes, ctx: Context) -> None: ...


@pytest.mark.parametrize(
    "function", [ByCall(), ByCall().method, functools.partial(ByCall().method), functools.partial(ByCall())]
)
def test_annotations_of_any_callable_are_read(function: Callable[..., Any]) -> None:
    assert registered(function, "x").kinds == {"x": (bytes,)}
    with pytest.raises(ConfigurationError, match="annotated bytes"):
        registered(function, Placed)


def test_a_class_is_no_handler() -> None:
    with pytest.raises(ConfigurationError, match="is a class; register one of its objects"):
        registered(ByCall, Placed)


async def returns_an_event(event: Placed) -> Cancelled: ...
async def returns_an_event_or_nothing(event: Placed) -> Cancelled | None: ...
def returns_events(event: Placed) -> list[Cancelled]: ...
def returns_an_unresolved_name(event: Placed) -> Unknown: ...
def returns_a_value(event: Placed) -> dict[str, int]: ...


@pytest.mark.parametrize("function", [returns_an_event, returns_an_event_or_nothing, returns_events])
def test_an_annotation_that_returns_events_is_refused_in_one_line(function: Callable[..., Any]) -> None:
    with pytest.raises(ConfigurationError, match="annotated to return Cancelled, which nothing would publish"):
        registered(function, Placed)


def printing(function: Callable[..., Any]) -> Callable[..., Any]:
    """Do something with what a function returns."""

    @functools.wraps(function)
    async def call(event: Placed) -> None:
        print(await function(event))

    return call


@pytest.mark.parametrize("function", [returns_an_unresolved_name, returns_a_value, printing(returns_an_event)])
def test_an_annotation_of_what_is_returned_may_be_any_other(function: Callable[..., Any]) -> None:
    registered(function, Placed)
