"""From a function and what it was registered with to a handler as data: each fault is one line, at import."""

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ..broker import Existing
from ..events import ConfigurationError, Event, Kind
from .handler import HandlerSpec, Key
from .options import HandlerOptions, completed, name_of
from .ordering.ordered import check_ordered
from .signature import Members, kind_of, signature_of, takes, title

if TYPE_CHECKING:
    from ..sql import Database

_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,180}")
_WORD = r"([A-Za-z0-9_-]+|\*|#)"
_PATTERN = re.compile(rf"{_WORD}(\.{_WORD})*")


def handler_spec(
    worker: str,
    function: Callable[..., Any],
    events: tuple[type[Event] | str, ...],
    within: "Database[Any] | None",
    given: HandlerOptions,
) -> HandlerSpec:
    """Check what the user wrote and make it data. Raises `ConfigurationError`, one line naming the handler."""
    called = given.get("name") or str(getattr(function, "__name__", type(function).__name__))
    where = f"handler {called!r} of worker {worker!r}"
    options = completed(given, where)
    queue, exchange = options["queue"] or f"{worker}.{called}", options["exchange"]
    is_existing, queue = isinstance(queue, Existing), name_of(queue)
    takes_session = getattr(within, "gives_session", within is not None)
    signature = signature_of(function, events, where, takes_session=takes_session)
    kinds = _kinds(events, signature.members, where)
    for label, text in (("name", called), ("queue", queue), ("exchange", name_of(exchange or "events"))):
        if not _NAME.fullmatch(text):
            raise ConfigurationError(f"{where}: {label}={text!r} may hold letters, digits and _.:- alone, at most 180")
    _check_key(options["key"], kinds, options["idempotent"], where)
    _check_within(within, signature.is_async, where)
    own = {
        "name": called,
        "queue": queue,
        "is_existing": is_existing,
        "arguments": dict(options["arguments"] or {}),
        "ordered": check_ordered(options, kinds, where),
    }
    fields: dict[str, Any] = {**options, **own, "publishes": _published(options["publishes"], where)}
    return HandlerSpec(
        function=function,
        kinds=kinds,
        takes_context=signature.takes_context,
        is_async=signature.is_async,
        within=within,
        **fields,
    )


def _check_within(database: "Database[Any] | None", is_async: bool, where: str) -> None:
    if database is None:
        return
    if not callable(getattr(database, "statements", None)):
        raise ConfigurationError(f"{where}: within={database!r}; give a Database of holdfast.sql")
    if database.is_async != is_async:
        kinds = ("async def", "def") if database.is_async else ("def", "async def")
        raise ConfigurationError(f"{where} is `{kinds[1]}`; the sessions of its within= are for `{kinds[0]}`")


def _check_key(key: Key | None, kinds: Mapping[str, tuple[Kind, ...]], idempotent: bool, where: str) -> None:
    if key is None:
        return
    if not idempotent:
        raise ConfigurationError(f"{where}: key= means nothing with idempotent=False")
    if inspect.iscoroutinefunction(key):
        raise ConfigurationError(f"{where}: key= is an async function; give a plain one")
    if callable(key):
        return
    if not isinstance(key, str):
        raise ConfigurationError(f"{where}: key={key!r}; give the name of a field, or a function of the event")
    for kind in (kind for taken in kinds.values() for kind in taken):
        if kind is bytes:
            raise ConfigurationError(f"{where}: key={key!r}: a body of bytes has no fields; give a function of it")
        if isinstance(kind, type) and issubclass(kind, Event) and key not in kind.model_fields:
            raise ConfigurationError(f"{where}: {kind.__name__} has no field {key!r} for key=")


def _kinds(events: tuple[type[Event] | str, ...], members: Members, where: str) -> dict[str, tuple[Kind, ...]]:
    kinds: dict[str, tuple[Kind, ...]] = {}
    classes = [event for event in events if isinstance(event, type)]
    for event in events or tuple(m for m in members or () if isinstance(m, type) and issubclass(m, Event)):
        if isinstance(event, str):
            key, twice = event, event in kinds
            if not _PATTERN.fullmatch(key) or len(key) > 150:
                raise ConfigurationError(
                    f"{where}: event {key!r} is not a dotted name such as 'order.created' or pattern such as 'order.*'"
                )
            kind: Kind = _kind_of_name(key, members, classes, where)
        elif isinstance(event, type) and issubclass(event, Event) and event is not Event:
            key, kind = event.__event_type__, event
            twice = any(_version(other) in (None, event.__event_version__) for other in kinds.get(key, ()))
            if not takes(members, event):
                annotated = title(members)
                raise ConfigurationError(
                    f"{where} is for {event.__name__}, but its first parameter is annotated {annotated}"
                )
        else:
            raise ConfigurationError(f"{where}: {event!r} is neither an Event class nor the name of an event type")
        if twice:
            raise ConfigurationError(f"{where}: event type {key!r} is given twice")
        kinds[key] = (*kinds.get(key, ()), kind)
    if not kinds:
        raise ConfigurationError(f"{where} takes no event; write @worker.handler(SomeEvent)")
    return kinds


def _kind_of_name(key: str, members: Members, classes: list[type], where: str) -> Kind:
    """Return what an event named by text becomes: what the parameter says, or a `dict` where it says nothing."""
    if members is None:
        return dict
    kinds = dict.fromkeys(kind_of(member) for member in members)
    if None in kinds or Event in kinds:
        raise ConfigurationError(
            f"{where}: its first parameter is annotated {title(members)}, and {key!r} is named by text: "
            "that becomes one of your Event classes, a dict or bytes"
        )
    left = [kind for kind in kinds if kind not in classes] or list(kinds)
    if len(left) != 1 or left[0] is None:
        raise ConfigurationError(
            f"{where}: its first parameter is annotated {title(members)}, and nothing says which of them {key!r} is; "
            "give the classes instead of the name, or one of dict and bytes"
        )
    return left[0]


def _published(publishes: Iterable[type[Event]] | None, where: str) -> tuple[type[Event], ...] | None:
    if publishes is None:
        return None
    events = tuple(publishes) if isinstance(publishes, Iterable) else (None,)
    if any(not (isinstance(e, type) and issubclass(e, Event)) or e is Event for e in events):
        raise ConfigurationError(f"{where}: publishes={publishes!r}: give a tuple of Event classes")
    return events


def _version(kind: Kind) -> int | None:
    return kind.__event_version__ if issubclass(kind, Event) else None


def short_windows(handlers: Iterable[HandlerSpec], window: float) -> list[str]:
    """Return one line for each handler whose last retry may come after its event was forgotten. `window`: seconds."""
    return [
        f"handler {spec.name!r} may retry for {span:.0f} s, longer than HOLDFAST_IDEMPOTENCY__TTL={window:g}: "
        "an event may be forgotten before its last attempt; raise the one or lower the other"
        for spec in handlers
        if spec.idempotent and spec.within is None and (span := spec.retry.span(spec.timeout, window)) > window
    ]
