"""Messages as lines of JSON, exactly: what is discarded, exported and indexed is kept in this form.

A body that is UTF-8 is kept as text, any other as base64. A value that JSON has no form for is an object with one key:
`$bytes`, `$time`, `$decimal`, or `$table` for a table that itself has one key beginning with a dollar sign.
"""

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from ..events import ConfigurationError, Message
from .files import write_lines

VERSION = 1
_NOT_TEXT = ("body", "headers", "timestamp", "priority")
_TEXTS = tuple(field.name for field in fields(Message) if field.name not in _NOT_TEXT)


def to_line(message: Message, **about: Any) -> str:
    """Write a message, and next to it `about`, as one line."""
    record = {"holdfast-letter": VERSION, **about, "message": to_json(message)}
    return json.dumps(record, ensure_ascii=False).encode("utf-8", "surrogatepass").decode("utf-8", "replace") + "\n"


def from_line(line: str | bytes) -> tuple[Message, dict[str, Any]]:
    """Return the message of a line, and the values next to it. Raises `ConfigurationError` saying what is wrong."""
    try:
        record = json.loads(line)
        if not isinstance(record, dict) or record.pop("holdfast-letter", None) != VERSION:
            raise ConfigurationError("not a line of an archive of dead letters")
        return from_json(record.pop("message")), record
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, InvalidOperation) as error:
        raise ConfigurationError(f"not a line of an archive of dead letters ({type(error).__name__})") from None


def lines_of(path: Path) -> Iterator[tuple[str, Message]]:
    """Read the letters of an archive, each with the dead-letter queue it is from.

    Raises `ConfigurationError` naming the line."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                message, about = from_line(line)
                queue = about.get("queue")
                if not isinstance(queue, str) or not queue:
                    raise ConfigurationError("it names no queue")
            except ConfigurationError as error:
                raise ConfigurationError(f"{path}, line {number}: {error}") from None
            yield queue, message


class Archive:
    """The file to which an operation writes letters, each once however often it begins again. `about` is what every
    line says besides."""

    def __init__(self, path: Path, **about: str) -> None:
        self._path = path
        self._about = about
        self._kept = _keys_in(path) if path.exists() else set[str]()

    def keep(self, letters: Iterable[tuple[Message, dict[str, str]]]) -> None:
        """Return once the letters are on disk, each with what else is known of it: its key at least."""
        about = self._about | {"archived_at": datetime.now(UTC).isoformat()}
        new = {one["key"]: to_line(message, **one, **about) for message, one in letters if one["key"] not in self._kept}
        write_lines(self._path, new.values(), append=True)
        self._kept |= new.keys()


def _keys_in(path: Path) -> set[str]:
    """Return the keys of the letters in an archive, and cut off a last line that was written in part."""
    keys, whole = set(), 0
    with path.open("rb+") as file:
        for line in file:
            if not line.endswith(b"\n"):
                file.truncate(whole)
                break
            whole += len(line)
            keys.add(str(from_line(line)[1].get("key")))
    return keys


def to_json(message: Message) -> dict[str, Any]:
    """The message as a value that JSON has a form for; equal messages give equal values."""
    record: dict[str, Any] = {name: value for name in _TEXTS if (value := getattr(message, name)) is not None}
    try:
        record["body"] = message.body.decode()
    except UnicodeDecodeError:
        record["body_base64"] = base64.b64encode(message.body).decode()
    if message.headers:
        record["headers"] = {name: _plain(message.headers[name]) for name in sorted(message.headers)}
    if message.timestamp is not None:
        record["timestamp"] = message.timestamp.isoformat()
    if message.priority is not None:
        record["priority"] = message.priority
    return record


def from_json(record: Mapping[str, Any]) -> Message:
    """Undoes `to_json`. Raises `ValueError`, `KeyError`, `TypeError` or `AttributeError` for anything else."""
    body = (
        base64.b64decode(record["body_base64"], validate=True) if "body_base64" in record else record["body"].encode()
    )
    texts: dict[str, Any] = {name: record.get(name) for name in _TEXTS}
    if not all(value is None or isinstance(value, str) for value in texts.values()):
        raise TypeError("a property is not text")
    texts |= {"exchange": texts["exchange"] or "", "routing_key": texts["routing_key"] or ""}
    timestamp, priority = record.get("timestamp"), record.get("priority")
    if priority is not None and type(priority) is not int:
        raise TypeError("priority is not a number")
    return Message(
        body,
        headers={str(name): _rich(value) for name, value in record.get("headers", {}).items()},
        timestamp=None if timestamp is None else datetime.fromisoformat(timestamp),
        priority=priority,
        **texts,
    )


def _plain(value: Any) -> Any:
    match value:
        case bytes() | bytearray():
            return {"$bytes": base64.b64encode(value).decode()}
        case datetime():
            return {"$time": value.isoformat()}
        case Decimal():
            return {"$decimal": str(value)}
        case Mapping():
            table = {str(name): _plain(value[name]) for name in sorted(value, key=str)}
            return {"$table": table} if len(table) == 1 and next(iter(table)).startswith("$") else table
        case list() | tuple():
            return [_plain(inner) for inner in value]
        case _:
            return value


def _rich(value: Any) -> Any:
    match value:
        case {"$bytes": str(text)} if len(value) == 1:
            return bytearray(base64.b64decode(text, validate=True))
        case {"$time": str(text)} if len(value) == 1:
            return datetime.fromisoformat(text)
        case {"$decimal": str(text)} if len(value) == 1:
            return Decimal(text)
        case {"$table": dict(table)} if len(value) == 1:
            return {name: _rich(inner) for name, inner in table.items()}
        case dict():
            return {name: _rich(inner) for name, inner in value.items()}
        case list():
            return [_rich(inner) for inner in value]
        case _:
            return value
