"""Bodies: JSON through pydantic, straight from and to bytes. Nothing else is ever executed or unpickled."""

import math
from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from typing import Any, Final, TypeAlias

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError, from_json

from .body import BYTE_ORDER_MARK, COMPRESSED, content_type_of, encoding_of, unpacked
from .cloudevents import data_of, is_structured
from .errors import PublishError, Unreadable
from .event import Event
from .forms import extra_of
from .message import Message

Kind: TypeAlias = type[Event] | type[dict[str, Any]] | type[bytes]
Decoder: TypeAlias = Callable[[bytes], Any]

_N: Final = ord("N")  # an octet is looked for ten times as fast as a word
_I: Final = ord("I")
_CHARSETS: Final = frozenset({"", "utf-8", "utf8", "us-ascii", "ascii", "identity", "binary"})
_JSON_TYPES: Final = frozenset(
    {"", "application/json", "text/json", "text/plain", "application/octet-stream", "application/data"}
)


def encode(event: Event) -> bytes:
    """Return the event as JSON bytes. Raises `PublishError` naming the class where a field has no JSON form."""
    try:
        body = event.__pydantic_serializer__.to_json(event, by_alias=True)
    except PydanticSerializationError as error:
        raise PublishError(f"{type(event).__name__} cannot be written as JSON: {error}") from error
    if b"null" in body and (where := _infinite(event)):  # what pydantic writes for infinity in a model that allows it
        raise PublishError(f"{type(event).__name__} cannot be written as JSON: {where} is infinite or not a number")
    return body


def _infinite(value: Any) -> str:
    """Return where a value holds infinity or NaN, for which JSON has no form; nothing where it holds none."""
    match value:
        case float() if not math.isfinite(value):
            return "a value"
        case BaseModel():
            parts: Iterable[tuple[Any, Any]] = {**vars(value), **(value.model_extra or {})}.items()
        case dict():
            parts = value.items()
        case list() | tuple() | set() | frozenset():
            parts = enumerate(value)
        case _ if is_dataclass(value):
            parts = ((field.name, getattr(value, field.name)) for field in fields(value))
        case _:
            return ""
    inner = ((name, where) for name, part in parts if (where := _infinite(part)))
    return next((f"{name}" if where == "a value" else f"{name}.{where}" for name, where in inner), "")


def decoder_for(kind: Kind) -> Decoder:
    """Return the function that turns a body into what the handler asks for: a model, a `dict` or raw `bytes`."""
    if kind is bytes:
        return bytes
    if isinstance(kind, type) and issubclass(kind, Event):
        return _reader_of(kind)
    return _read_object


def _reader_of(kind: type[Event]) -> Decoder:
    validate, extra = kind.__pydantic_validator__.validate_json, extra_of(kind)

    def read(body: bytes) -> Event:
        event: Event = validate(body, extra=extra)
        if (_N in body and b"NaN" in body) or (_I in body and b"Infinity" in body):
            from_json(body, allow_inf_nan=False)  # a field of type Any takes them; JSON has neither
        return event

    return read


def decode(decoder: Decoder, message: Message) -> Any:
    """Return what the handler receives.

    Raises `Unreadable`; its text names the field at fault and holds no payload.
    """
    body, is_raw = message.body, decoder is bytes
    try:
        if not (is_raw or (message.content_type == "application/json" and not message.content_encoding)):
            body = _json_of(message)
        elif body.startswith(BYTE_ORDER_MARK) and not is_raw:
            body = body[len(BYTE_ORDER_MARK) :]
        return decoder(body)
    except Unreadable:
        raise
    except ValidationError as error:
        raise Unreadable(describe(error), finding_of(error)) from None
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"not JSON: {str(error)[:200]}") from None
    except Exception as error:  # a validator of the user's may raise anything
        raise Unreadable(f"a validator of the event raised {type(error).__name__}") from error


def plain(message: Message) -> tuple[bytes, str]:
    """Return the body without compression and without the frame of a CloudEvent, and its content type. A body that is
    no JSON, or not what its properties say, stays as it is."""
    try:
        return _json_of(message), "application/json"
    except (Unreadable, ValueError, RecursionError):
        return message.body, message.content_type or "application/octet-stream"


def describe(error: ValidationError) -> str:
    """Return pydantic's findings as `field: message`, without the values that were sent."""
    findings = error.errors(include_input=False, include_url=False, include_context=False)
    lines = [f"{'.'.join(str(part) for part in f['loc'])}: {f['msg']}" if f["loc"] else f["msg"] for f in findings[:20]]
    more = f"; and {len(findings) - 20} more" if len(findings) > 20 else ""
    return ("; ".join(lines) + more)[:4000]


def finding_of(error: ValidationError) -> str:
    """Return where pydantic's findings are and of which kind: `items.*.price: missing`, for an item of any number."""
    findings = error.errors(include_input=False, include_url=False, include_context=False)
    faults = {(".".join("*" if type(part) is int else str(part) for part in f["loc"]), f["type"]) for f in findings}
    return "; ".join(f"{where}: {kind}" for where, kind in sorted(faults))


def _json_of(message: Message) -> bytes:
    """Return the JSON text of a message in any form that is read. Raises `Unreadable`, and `ValueError` for a body that
    is not what its properties say."""
    encoding, kind = encoding_of(message), content_type_of(message)
    if encoding not in _CHARSETS and encoding not in COMPRESSED:
        raise Unreadable(f"content encoding {encoding[:60]!r} is not supported; send UTF-8 JSON as it is, or as gzip")
    if kind not in _JSON_TYPES and not kind.endswith("+json"):
        raise Unreadable(f"content type {kind[:60]!r} is not JSON; declare the handler's event as bytes to take it raw")
    body = unpacked(message)
    return data_of(body) if is_structured(message) else body


def _read_object(body: bytes) -> dict[str, Any]:
    value = from_json(body, allow_inf_nan=False)
    if not isinstance(value, dict):
        raise ValueError(f"the body is a {type(value).__name__}, not an object")
    return value
