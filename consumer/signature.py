"""What a handler's function takes, read from its parameters and annotations."""

import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from ..events import ConfigurationError, Event, Kind


def signature(function: Callable[..., Any], where: str) -> tuple[tuple[Kind, ...], bool]:
    """What the first parameter is annotated with, and whether there is a second one.

    The annotation's kinds are empty where it says nothing, or something that is no event. Raises
    `ConfigurationError` for what cannot be called with an event.
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        raise ConfigurationError(f"{where}: {function!r} is not a function") from None
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigurationError(f"{where} has a `yield`, so calling it would run nothing; a handler returns")
    places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if places and places[0].name in ("self", "cls"):
        raise ConfigurationError(
            f"{where} is a method without its object; register it bound: handler(Event)(thing.method)"
        )
    if not places or len(required) > 2 or any(p not in places[:2] for p in required):
        raise ConfigurationError(f"{where}: a handler takes the event and, if it likes, the context: (event, ctx)")
    try:
        hints = typing.get_type_hints(function)
    except Exception:  # noqa: BLE001 (an annotation may be any expression)
        hints = {}
    return _kinds_of(hints.get(places[0].name, Any)), len(places) > 1


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling it gives a coroutine."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def _kinds_of(hint: Any) -> tuple[Kind, ...]:
    """The kinds of a union, or of one annotation; nothing where a part of it is none of ours."""
    is_union = isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
    members = [member for member in (typing.get_args(hint) if is_union else (hint,)) if member is not types.NoneType]
    kinds = [_kind(member) for member in members]
    return tuple(kind for kind in kinds if kind is not None) if None not in kinds else ()


def _kind(annotation: Any) -> Kind | None:
    plain = typing.get_origin(annotation) or annotation
    if plain in (dict, Mapping):
        return dict
    if plain is bytes or (isinstance(plain, type) and issubclass(plain, Event)):
        return plain
    return None
