"""What may be written of a value: secrets redacted, control characters neutralised, everything bounded."""

import math
import re
from collections.abc import Mapping, MutableMapping
from itertools import islice
from typing import Any, TypeAlias

from .redact import is_secret, redact

Line: TypeAlias = MutableMapping[str, Any]

TEXT_LIMIT = 4_000
"""Characters a text of a log line may have; of what is longer, head and tail are written."""

_TRACEBACK_LIMIT = 16_000
_NESTED_LIMIT, _ITEMS, _DEPTH = 1_000, 50, 4
_TRACEBACKS = frozenset({"exception", "stack", "traceback"})
# Control characters but tab and newline, what turns the direction of text, line separators, lone surrogates.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def safe_values(logger: Any, method: str, line: Line) -> Line:
    """Redact secrets, neutralise control characters and bound the length of everything in a line."""
    return {name if name.isprintable() else _text(name, 100): _field(name, value) for name, value in line.items()}


def _field(name: str, value: Any) -> Any:
    if name in ("_record", "_from_structlog"):  # structlog's own, on their way to the formatter
        return value
    if is_secret(name):
        return "***"
    if isinstance(value, str):
        return _text(value, _TRACEBACK_LIMIT if name in _TRACEBACKS else TEXT_LIMIT)
    return _plain(value, _DEPTH)


def _plain(value: Any, depth: int) -> Any:
    """A value that JSON can hold, bounded at every level."""
    match value:
        case None | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case str():
            return _text(value, _NESTED_LIMIT)
        case Mapping() if depth:
            pairs = [(str(name), item) for name, item in islice(value.items(), _ITEMS)]
            return {_text(name, 100): "***" if is_secret(name) else _plain(item, depth - 1) for name, item in pairs}
        case list() | tuple() | set() | frozenset() if depth:
            return [_plain(item, depth - 1) for item in islice(value, _ITEMS)]
        case _:
            return _text(_told(value), TEXT_LIMIT)


def _told(value: Any) -> str:
    try:
        return f"{type(value).__name__}: {value}" if isinstance(value, BaseException) else str(value)
    except Exception as broken:  # noqa: BLE001 (a line must not fail for what it tells of)
        return f"<a {type(value).__name__} whose text cannot be read: {type(broken).__name__}>"


def _text(text: str, limit: int) -> str:
    """Redacted and bounded. What is far too long is cut first: a secret at that cut is not in what is written."""
    length = len(text)
    if length > 4 * limit:
        text = text[: 2 * limit] + text[-2 * limit :]
    text = redact(text)
    if not text.isprintable():
        text = _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
    if length <= 4 * limit and len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n... {max(length, len(text)) - 2 * half} characters left out ...\n{text[-half:]}"
