"""The in-memory broker of a harness: it keeps a book of the events it takes, and can take each one twice."""

from dataclasses import dataclass, replace
from typing import TypeAlias

from ..broker import LEDGER_SUFFIX, Binding, Clock, Exchange, Queue, Topology, dead_letter_queue, ladder, owning_queue
from ..broker.memory import Server
from ..events import Message, Names, headers, read_metadata, uuid7

EventInQueue: TypeAlias = tuple[str, str]
"""An event's id and the queue of a handler: what must end somewhere."""

ELSEWHERE = "holdfast.testing.elsewhere"
"""The queue that stands for listeners outside the harness: what handlers publish is routed."""


@dataclass(frozen=True, slots=True)
class Taken:
    """An event that was published, and the queues of the handlers it goes to."""

    message: Message
    event_id: str
    queues: tuple[str, ...]


class WatchedServer(Server):
    """A server in which events are to end in `queues_of_handlers`; `names` are the headers of ids and types."""

    def __init__(self, url: str, clock: Clock, queues_of_handlers: tuple[str, ...], names: Names) -> None:
        super().__init__(url, clock)
        self._names = names
        self.taken: list[Taken] = []
        self.takes_twice = False
        self._handlers = queues_of_handlers

    def publish(self, message: Message) -> None:
        super().publish(message)
        if not is_event(message):
            return
        event_id = read_metadata(message, self._clock.now(), self._names).event_id
        queues = tuple(name for name in self._listeners(message) if name in self._handlers)
        self.taken.append(Taken(message, event_id, queues))
        if self.takes_twice:
            own_id = headers.EVENT_ID in message.headers  # without it, its message id is the event's
            super().publish(replace(message, message_id=uuid7() if own_id else message.message_id))

    def hear_all(self, exchange: str) -> None:
        """Declare the listener that takes what no handler here takes."""
        queue, binding = Queue(ELSEWHERE), Binding(exchange, ELSEWHERE, "#")
        self.declare(Topology((Exchange(exchange),), (queue,), (binding,)))

    def resting(self) -> set[EventInQueue]:
        """What is queued: in the queue of a handler, or on the delay ladder on its way to one."""
        return {
            (read_metadata(message, self._clock.now(), self._names).event_id, target)
            for name, queue in self.queues.items()
            for message in (*(entry.message for entry in queue.ready), *queue.stranded)
            for target in self._going_to(name, message)
        }

    def dead(self) -> list[tuple[str, Message]]:
        """The messages of the dead-letter queues, each with the queue of its handler."""
        return [
            (name, entry.message)
            for name in self._handlers
            if (queue := self.queues.get(dead_letter_queue(name))) is not None
            for entry in queue.ready
        ]

    def take_dead(self, queue: str, letter: Message) -> None:
        """Take a letter out of a dead-letter queue, for what replaced it."""
        ready = self.queues[queue].ready
        for entry in [entry for entry in ready if entry.message is letter or entry.message == letter][:1]:
            ready.remove(entry)

    @property
    def is_waiting(self) -> bool:
        """Whether anything will come back by itself as time passes."""
        levels = (queue for name, queue in self.queues.items() if name.startswith(ladder.LEVELS))
        return any(queue.ready or queue.stranded for queue in levels)

    def _going_to(self, queue: str, message: Message) -> tuple[str, ...]:
        if queue.endswith(LEDGER_SUFFIX) and message.headers.get(headers.LEDGER) not in ("parked", "letter"):
            return ()
        if owning_queue(queue) in self._handlers:
            return (owning_queue(queue),)
        if not queue.startswith(ladder.LEVELS):
            return ()
        only = message.headers.get(headers.QUEUE)
        return tuple(name for name in self._listeners(message) if name in self._handlers and only in (None, name))

    def _listeners(self, message: Message) -> tuple[str, ...]:
        exchange = ladder.OUT if is_delayed(message) else message.exchange
        return self._routing.route(exchange, message.routing_key, message.headers)


def is_event(message: Message) -> bool:
    """Not a copy of one, nor what workers tell tools about themselves."""
    return bool(message.exchange) and headers.QUEUE not in message.headers


def is_delayed(message: Message) -> bool:
    return message.exchange.startswith(ladder.LEVELS)


def delay_of(message: Message) -> float | None:
    """Return the seconds a message spends on the ladder; None where it does not take it."""
    return ladder.delay_of(message.headers) if is_delayed(message) else None
