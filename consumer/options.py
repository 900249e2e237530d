"""`HandlerOptions`: the options of a handler, with their types and defaults, and how `help` shows them."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any, TypedDict, TypeVar

from ..broker import OURS, Existing, headers_size
from ..events import ConfigurationError, Event
from .handler import Key, OnOutage
from .ordering import Ordered
from .retry import Retry

Function = TypeVar("Function", bound=Callable[..., Any])


class HandlerOptions(TypedDict, total=False):
    """The keyword arguments of `Worker.handler`, each described there. Each is None unless `DEFAULTS` names it."""

    name: str | None
    queue: str | Existing | None
    exchange: str | Existing | None
    arguments: Mapping[str, Any] | None
    retry: Retry
    timeout: float
    concurrency: int | None
    prefetch: int | None
    publishes: Iterable[type[Event]] | None
    idempotent: bool
    key: Key | None
    on_outage: OnOutage | None
    ordered: bool | Ordered


DEFAULTS: HandlerOptions = {"retry": Retry(), "timeout": 60.0, "idempotent": True, "ordered": False}


def completed(given: HandlerOptions, where: str) -> HandlerOptions:
    """Return all options: those given, checked, and the defaults of the others.

    `where` names the handler in the `ConfigurationError` that an unknown option or a wrong value raises.
    """
    known = list(HandlerOptions.__annotations__)
    for option in given.keys() - set(known):
        meant = "".join(f"; did you mean {near}=?" for near in get_close_matches(option, [*known, "within"], n=1))
        raise ConfigurationError(f"{where}: a handler has no option {option}={meant}")
    unset: Any = dict.fromkeys(known)
    options: HandlerOptions = {**unset, **DEFAULTS, **given}
    _check(options, where)
    _check_queue(options, where)
    return options


def name_of(given: str | Existing) -> str:
    """Return the name of a queue or an exchange."""
    return given.name if isinstance(given, Existing) else given


def _check(options: HandlerOptions, where: str) -> None:
    retry, timeout, on_outage = options["retry"], options["timeout"], options["on_outage"]
    if not isinstance(retry, Retry):
        raise ConfigurationError(f"{where}: retry={retry!r}; give Retry(attempts=...)")
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout < float("inf"):
        raise ConfigurationError(f"{where}: timeout={timeout!r}; give seconds above 0")
    for label, number in (("concurrency", options["concurrency"]), ("prefetch", options["prefetch"])):
        if number is not None and (type(number) is not int or not 1 <= number <= 65_535):
            raise ConfigurationError(f"{where}: {label}={number!r}; give a whole number from 1 to 65535, or None")
    if on_outage not in (None, "pause", "process"):
        raise ConfigurationError(f"{where}: on_outage={on_outage!r}; give 'pause', 'process', or None for the setting")


def _check_queue(options: HandlerOptions, where: str) -> None:
    arguments = options["arguments"]
    if isinstance(options["queue"], Existing) and (options["exchange"] or arguments):
        raise ConfigurationError(f"{where}: an Existing queue is neither declared nor bound: no exchange=, arguments=")
    if arguments is None:
        return
    if not isinstance(arguments, Mapping):
        raise ConfigurationError(f"{where}: arguments={arguments!r:.80}; give a dict")
    for name in arguments:
        if not isinstance(name, str) or not name.startswith("x-") or name in OURS:
            raise ConfigurationError(f"{where}: arguments= may not hold {name!r}; one begins with x-, and is not ours")
    try:
        headers_size(arguments)
    except ValueError as error:
        raise ConfigurationError(f"{where}: arguments=: {error}") from None


def spelled_out(function: Function) -> Function:
    """Make `help` and `inspect.signature` show each option of a function that takes `**options`."""
    signature = inspect.signature(function)
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=DEFAULTS.get(name), annotation=annotation)
        for name, annotation in HandlerOptions.__annotations__.items()
    ]
    own = [each for each in signature.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
    vars(function)["__signature__"] = signature.replace(parameters=[*own, *options])
    return function
