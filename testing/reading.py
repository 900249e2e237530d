"""From messages back to what they tell: the events that were published, and the dead letters."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from ..consumer import HandlerSpec
from ..dead_letters.letter import key_of, read_letter
from ..events import Event, Message, Metadata, Unreadable, decode, decoder_for, read_metadata
from .records import DeadLettered, Published
from .server import delay_of


def read_published(message: Message, now: datetime, handlers: Iterable[HandlerSpec]) -> Published:
    """An event as it was published."""
    metadata = read_metadata(message, now)
    return Published(_event(message, metadata, handlers), metadata, delay_of(message))


def read_dead(message: Message, position: int, now: datetime, handler: HandlerSpec) -> DeadLettered:
    """A message in the dead-letter queue of `handler`."""
    letter = read_letter(message, key=key_of(message), position=position)
    event = _event(message, read_metadata(message, now), (handler,))
    about = (letter.reason, letter.attempt, letter.error_type, letter.error_message)
    return DeadLettered(event, handler.name, handler.queue, *about, letter)


def _event(message: Message, metadata: Metadata, handlers: Iterable[HandlerSpec]) -> Any:
    """The event as the class that handlers take it as, or else the class last defined for its type and version.
    A `dict` where no class reads it, None where it is no JSON object."""
    kinds = (kind for spec in handlers for taken in spec.kinds.values() for kind in taken if isinstance(kind, type))
    taken = [kind for kind in kinds if issubclass(kind, Event)]
    for kind in (*taken, *reversed([*_all_below(Event)])):
        if (kind.__event_type__, kind.__event_version__) == (metadata.event_type, metadata.version):
            try:
                return decode(decoder_for(kind), message)
            except Unreadable:
                continue
    try:
        return decode(decoder_for(dict), message)
    except Unreadable:
        return None


def _all_below(kind: type[Event]) -> Iterator[type[Event]]:
    for below in kind.__subclasses__():
        yield below
        yield from _all_below(below)
