"""Events as the journal holds them, and how they are read: by the classes and upcasts that live messages use."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..events import Event, HoldfastError, Message, Metadata, UnknownType, UnsupportedVersion, decode, headers
from ..events.reading import Reader
from ..events.reading import reader as make_reader
from ..sql import ERASED, Row, time_of


class Erased(HoldfastError):
    """The body of an event was erased, so its aggregate cannot be made from its events."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """An event's row in the journal.

    Attributes:
        position: Its position, from 1; 0 where it was read as one of an aggregate's.
        metadata: Its metadata.
        body: Its body.
        content_type: The type of the body.
        stream: The name of its aggregate; None for an event of none.
        stream_version: The version that it made of the aggregate.
    """

    position: int
    metadata: Metadata
    body: bytes
    content_type: str = "application/json"
    stream: str | None = None
    stream_version: int | None = None

    @property
    def event_id(self) -> str:
        """The id of the event."""
        return self.metadata.event_id

    @property
    def is_erased(self) -> bool:
        """Whether its body was erased."""
        return self.content_type == ERASED


def recorded_of(row: Row) -> Recorded:
    """Return the event in a row: its position, and the columns that `History` selects."""
    position, event_id, event_type, version, key, source, correlation_id, causation_id, caused_by, at, *rest = row
    extra, content_type, body, stream, stream_version, *_ = rest
    metadata = Metadata(
        event_id,
        event_type,
        time_of(at),
        version,
        source,
        key,
        correlation_id,
        causation_id,
        None if extra == "{}" else dict(json.loads(extra)).get(headers.TRACEPARENT),
        caused_by,
    )
    return Recorded(position or 0, metadata, bytes(body), content_type, stream, stream_version)


class Reading:
    """How the events of some classes are read. The ways are made when the first is read: upcasts may come later."""

    def __init__(self, classes: Iterable[type[Event]], where: str) -> None:
        self._classes = tuple(classes)
        self._where = where
        self._readers: dict[str, Reader] = {}

    @property
    def types(self) -> tuple[str, ...]:
        """The types of the events, each once."""
        return tuple(dict.fromkeys(cls.__event_type__ for cls in self._classes))

    def prepare(self) -> None:
        """Make the ways. Raises `ConfigurationError` where a known version cannot be upcast to one that is taken."""
        for event_type in self.types:
            taken = [cls for cls in self._classes if cls.__event_type__ == event_type]
            self._readers[event_type] = make_reader(taken, self._where)

    def read(self, recorded: Recorded) -> Any:
        """Return the event. Raises `UnknownType`, `UnsupportedVersion`, `Unreadable`, and `Erased`."""
        metadata = recorded.metadata
        if not self._readers:
            self.prepare()
        if recorded.is_erased:
            raise Erased(f"{self._where}: event {metadata.event_id} was erased")
        reader = self._readers.get(metadata.event_type)
        if reader is None:
            raise UnknownType(f"{self._where} does not know {metadata.event_type!r}, which its history holds")
        way = reader.versions.get(metadata.version) or reader.otherwise(metadata.version)
        if way is None:
            raise UnsupportedVersion(f"{self._where} does not know version {metadata.version} of {metadata.event_type}")
        event = decode(way.decoder, Message(recorded.body, content_type=recorded.content_type))
        return event if way.casts is None else way.casts(event)
