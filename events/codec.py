"""Bodies: JSON through pydantic, straight from and to bytes. Nothing else is ever executed or unpickled."""

from collections.abc import Callable
from typing import Any, TypeAlias

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError, from_json

from .cloudevents import STRUCTURED, data_of
from .errors import PublishError, Unreadable
from .event import Event
from .message import Message

Kind: TypeAlias = type[Event] | type[dict[str, Any]] | type[bytes]
Decoder: TypeAlias = Callable[[bytes], Any]

_CHARSETS = frozenset({"", "utf-8", "utf8", "us-ascii", "ascii", "identity", "binary"})
_JSON_TYPES = frozenset(
    {"", "application/json", "text/json", "text/plain", "application/octet-stream", "application/data"}
)


def encode(event: Event) -> bytes:
    """Return the event as JSON bytes. Raises `PublishError` naming the class where a field has no JSON form."""
    try:
        return event.__pydantic_serializer__.to_json(event, by_alias=True)
    except PydanticSerializationError as error:
        raise PublishError(f"{type(event).__name__} cannot be written as JSON: {error}") from error


def decoder_for(kind: Kind) -> Decoder:
    """Return the function that turns a body into what the handler asks for: a model, a `dict` or raw `bytes`."""
    if kind is bytes:
        return bytes
    if isinstance(kind, type) and issubclass(kind, Event):
        return _reader_of(kind)
    return _read_object


def _reader_of(kind: type[Event]) -> Decoder:
    validate = kind.__pydantic_validator__.validate_json

    def read(body: bytes) -> Event:
        event: Event = validate(body, extra="ignore")
        if b"NaN" in body or b"Infinity" in body:  # a field of type Any takes them; JSON has neither
            from_json(body, allow_inf_nan=False)
        return event

    return read


def decode(decoder: Decoder, message: Message) -> Any:
    """Return what the handler receives.

    Raises `Unreadable`; its text names the field at fault and holds no payload.
    """
    is_plain = decoder is bytes or (message.content_type == "application/json" and not message.content_encoding)
    is_structured = not is_plain and _check_format(message) == STRUCTURED
    try:
        return decoder(data_of(message.body) if is_structured else message.body)
    except ValidationError as error:
        raise Unreadable(describe(error), finding_of(error)) from None
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"not JSON: {str(error)[:200]}") from None
    except Exception as error:  # a validator of the user's may raise anything
        raise Unreadable(f"a validator of the event raised {type(error).__name__}") from error


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


def _check_format(message: Message) -> str:
    encoding = (message.content_encoding or "").lower()
    if encoding not in _CHARSETS:
        raise Unreadable(f"content encoding {encoding[:60]!r} is not supported; send UTF-8 JSON as it is")
    kind = (message.content_type or "").partition(";")[0].strip().lower()
    if kind not in _JSON_TYPES and not kind.endswith("+json"):
        raise Unreadable(f"content type {kind[:60]!r} is not JSON; declare the handler's event as bytes to take it raw")
    return kind


def _read_object(body: bytes) -> dict[str, Any]:
    value = from_json(body, allow_inf_nan=False)
    if not isinstance(value, dict):
        raise ValueError(f"the body is a {type(value).__name__}, not an object")
    return value
