"""What a function takes, by its signature: the event, then the context. Each fault is one line, at import."""

import functools
import inspect
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..events import ConfigurationError, Event, Kind
from .context import Context

Members = tuple[Any, ...] | None
"""The types that an annotation names, those of a union apart; None where it says nothing, or `Any`."""


@dataclass(frozen=True, slots=True)
class Signature:
    """The types its first parameter is annotated with, and whether it takes a context and is called on the loop."""

    members: Members
    takes_context: bool
    is_async: bool


def signature_of(
    function: Callable[..., Any], events: Iterable[Any], where: str, *, takes_session: bool = False
) -> Signature:
    """Return what a handler takes. `events` are those it is registered for: their names are known in annotations.

    Raises `ConfigurationError` for what cannot be called with an event, or is annotated otherwise.
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        raise ConfigurationError(f"{where}: {function!r} is not a function") from None
    if isinstance(function, type):
        raise ConfigurationError(f"{where} is a class; register one of its objects, with a method __call__")
    called = _called(function)
    if inspect.isgeneratorfunction(called) or inspect.isasyncgenfunction(called):
        raise ConfigurationError(f"{where} has a `yield`, so calling it would run nothing; a handler returns")
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if positional and positional[0].name in ("self", "cls"):
        raise ConfigurationError(
            f"{where} is a method without its object; register it bound: handler(Event)(service.method)"
        )
    _check_count(positional, required, where, takes_session=takes_session)
    names = _names(function, events)
    members = _members_of_first(positional[0], names, where)
    if len(positional) > 1:
        _check_second(positional[0], positional[1], names, where)
    if called is inspect.unwrap(called):  # a decorator may publish what the function returns
        _check_returned(inspect.signature(function).return_annotation, names, where)
    _check_call(function, 3 if takes_session else 2 if len(positional) > 1 else 1, where)
    return Signature(members, len(positional) > 1, inspect.iscoroutinefunction(called))


def _check_count(positional: list[Any], required: list[Any], where: str, *, takes_session: bool) -> None:
    """Raise `ConfigurationError` for more parameters than a handler is called with, or too few."""
    most = 3 if takes_session else 2
    is_called = bool(positional) and len(required) <= most and all(p in positional[:most] for p in required)
    if takes_session and not (is_called and len(positional) >= most):
        raise ConfigurationError(f"{where}: with within= a handler takes three: (event, ctx, session)")
    if not is_called:
        raise ConfigurationError(f"{where}: a handler takes the event and, if it likes, the context: (event, ctx)")


def kind_of(member: Any) -> Kind | None:
    """Return what a handler is given for an annotation; None for one that no message becomes."""
    plain = _plain(member)
    if plain is bytes or (isinstance(plain, type) and issubclass(plain, Event)):
        return plain
    is_dict = plain is dict or typing.is_typeddict(plain) or (is_open(plain) and _is_satisfied(plain))
    return dict if is_dict else None


def _plain(member: Any) -> Any:
    """Return a type without its parameters: `dict` for `dict[str, int]`."""
    origin: Any = typing.get_origin(member)
    return member if origin is None else origin


def is_open(plain: Any) -> bool:
    """Return whether a type is an interface, such as `Mapping` or a protocol: what satisfies it is not looked at."""
    return isinstance(plain, type) and (inspect.isabstract(plain) or getattr(plain, "_is_protocol", False))


def _is_satisfied(interface: type) -> bool:
    """Return whether a `dict` has what an interface asks for, as far as that can be known."""
    try:
        return issubclass(dict, interface)
    except TypeError:  # a protocol that is not for run time
        return True


def takes(members: Members, event: type[Event]) -> bool:
    """Return whether a parameter annotated so takes this event."""
    if members is None:
        return True
    plains = [_plain(member) for member in members]
    return any(is_open(plain) or (isinstance(plain, type) and issubclass(event, plain)) for plain in plains)


def title(members: Members) -> str:
    """Return an annotation in words."""
    return " | ".join(getattr(member, "__name__", str(member)) for member in members or ("nothing",))


def _called(function: Any) -> Any:
    """Return the function whose code a call runs first."""
    while isinstance(function, functools.partial):
        function = function.func
    is_object = not (inspect.isroutine(function) or inspect.iscoroutinefunction(function))
    return type(function).__call__ if is_object else function


def _members_of_first(parameter: inspect.Parameter, names: Mapping[str, Any], where: str) -> Members:
    try:
        members = _members(_resolved(parameter.annotation, names))
    except Exception as error:  # noqa: BLE001 (an annotation may be any expression)
        raise ConfigurationError(
            f"{where}: the annotation {parameter.annotation!r:.80} of its first parameter cannot be resolved "
            f"({type(error).__name__}: {error}); import its names outside `if TYPE_CHECKING:`"
        ) from None
    if members is not None and any(_is_context(_plain(member)) for member in members):
        raise ConfigurationError(f"{where}: the event comes first, then the context: (event, ctx)")
    return members


def _check_second(first: inspect.Parameter, second: inspect.Parameter, names: Mapping[str, Any], where: str) -> None:
    """Refuse a second parameter that is not for the context. An annotation that cannot be resolved changes nothing."""
    if first.annotation is first.empty and first.name in ("ctx", "context"):
        raise ConfigurationError(f"{where}: the event comes first, then the context: (event, ctx)")
    try:
        members = _members(_resolved(second.annotation, names))
    except Exception:  # noqa: BLE001 (an annotation may be any expression)
        return
    plains = [_plain(member) for member in members or (Context,)]
    if not any(is_open(plain) or _is_context(plain) or not isinstance(plain, type) for plain in plains):
        raise ConfigurationError(
            f"{where}: its second parameter, {second.name!r}, is annotated {title(members)}; it is given the Context"
        )
    if members is None and second.default is not second.empty and second.default is not None:
        raise ConfigurationError(
            f"{where}: its second parameter is given the Context, so the default of {second.name!r} would never count"
        )


def _check_returned(annotation: Any, names: Mapping[str, Any], where: str) -> None:
    """Refuse the annotation of a function that returns events. One that cannot be resolved changes nothing."""
    try:
        members = _members(_resolved(annotation, names)) or ()
    except Exception:  # noqa: BLE001 (an annotation may be any expression)
        return
    parts = [part for member in members for part in (member, *typing.get_args(member))]
    if event := next((part for part in parts if isinstance(part, type) and issubclass(part, Event)), None):
        raise ConfigurationError(
            f"{where} is annotated to return {event.__name__}, which nothing would publish; "
            "publish it with ctx.publish, and return None"
        )


def _check_call(function: Callable[..., Any], count: int, where: str) -> None:
    """Refuse a decorator that takes other arguments than the function it wraps."""
    try:
        own = inspect.signature(function, follow_wrapped=False)
        own.bind(*range(count))
    except TypeError as error:
        raise ConfigurationError(f"{where}: its decorator cannot be called with (event, ctx): {error}") from None


def _is_context(member: Any) -> bool:
    return isinstance(member, type) and issubclass(member, Context)


def _names(function: Any, events: Iterable[Any]) -> dict[str, Any]:
    """Return what names in annotations mean: in the function's module and around it, and else what is likely meant."""
    likely = {event.__name__: event for event in events if isinstance(event, type)}
    own = sys.modules[__name__.partition(".")[0]]
    inner = inspect.unwrap(_called(function))
    inner = getattr(inner, "__func__", inner)
    if not inspect.isfunction(inner):
        return likely
    cells = zip(inner.__code__.co_freevars, inner.__closure__ or (), strict=True)
    around = {name: cell.cell_contents for name, cell in cells if cell != types.CellType()}
    return {"Context": Context, own.__name__: own, **likely, **inner.__globals__, **around}


def _resolved(annotation: Any, names: Mapping[str, Any]) -> Any:
    """Return an annotation with its names resolved. Raises whatever its evaluation raises."""
    if annotation is inspect.Parameter.empty:
        return Any

    def annotated() -> None: ...

    annotated.__annotations__ = {"it": annotation}
    return typing.get_type_hints(annotated, dict(names))["it"]


def _members(hint: Any) -> Members:
    """Return the types that an annotation names: of a union each, without None. Aliases are followed."""
    while (inner := getattr(hint, "__supertype__", None) or getattr(hint, "__value__", None)) is not None:
        hint = inner
    if hint in (Any, object) or isinstance(hint, typing.TypeVar):
        return None
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        parts = [_members(part) for part in typing.get_args(hint) if part is not types.NoneType]
        return None if None in parts else tuple(member for part in parts for member in part or ())
    return (hint,)
