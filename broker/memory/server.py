"""What the sessions of one `memory://` address share: exchanges, queues and what is in them."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from ...events import Message, PublishRefused, QueueInUse, TopologyDrift, TopologyMissing, Unroutable
from ..clock import REAL, Clock, Timer
from ..codec import address
from ..port import OnHeld
from ..topology import Binding, Exchange, Queue, Topology, described
from .browser import MemoryBrowser
from .queue import Entry, MemoryQueue, Taker, completes_a_cycle, died
from .routing import Routing
from .stream import MemoryStream

REDECLARE_AFTER = 0.1
"""Seconds after which a session declares a deleted queue of its topology again."""

DEAD_LETTER_AGAIN = 180.0
"""Seconds after which what could not be dead-lettered, at least once, is tried again: RabbitMQ's figure."""

_shared: dict[tuple[asyncio.AbstractEventLoop, str], "Server"] = {}


def shared(url: str) -> "Server":
    """The server of a `memory://` URL on the running loop; made when it is first asked for, and dropped
    with everything in it when the last session that joined it closes."""
    for known in [known for known in _shared if known[0].is_closed()]:
        del _shared[known]
    return _shared.setdefault((asyncio.get_running_loop(), url), Server(url))


def host(server: "Server") -> None:
    """Let the sessions of the server's URL, on the running loop, join this one."""
    _shared[asyncio.get_running_loop(), server.url] = server


class Server:
    """Exchanges, queues and messages. Synchronous: whoever calls it decides when the loop turns."""

    def __init__(self, url: str = "memory://", clock: Clock = REAL) -> None:
        self.url = url
        self._clock = clock
        self.queues: dict[str, MemoryQueue] = {}
        self._routing = Routing()
        self._watchers: list[Callable[[str], None]] = []
        self._awaiting: dict[str, dict[Taker, None]] = {}
        self._read: set[str] = set()
        self._again: Timer | None = None
        self._epoch: tuple[datetime, float] | None = None

    def join(self, on_queue_deleted: Callable[[str], None]) -> None:
        """A session opens. It hears the name of each queue that is deleted."""
        self._watchers.append(on_queue_deleted)

    def leave(self, on_queue_deleted: Callable[[str], None]) -> None:
        """A session closes. With the last one everything goes."""
        self._watchers.remove(on_queue_deleted)
        if self._watchers:
            return
        for known in [known for known, server in _shared.items() if server is self]:
            del _shared[known]
        for queue in self.queues.values():
            queue.delete()
        self.queues.clear()
        self._wind()

    def declare(self, topology: Topology) -> None:
        """Create what is missing, in order. Raises `TopologyDrift` at the first difference, `TopologyMissing`."""
        for exchange in topology.exchanges:
            self._declare_exchange(exchange)
        for queue in topology.queues:
            self._declare_queue(queue)
        for binding in topology.bindings:
            self._bind(binding)
        self._dead_letter_again()

    def verify(self, topology: Topology) -> None:
        """Check that everything exists. Raises `TopologyMissing` naming each that does not."""
        missing = [f"no exchange '{e.name}'" for e in topology.exchanges if not self._has_exchange(e.name)]
        missing += [f"no queue '{queue.name}'" for queue in topology.queues if queue.name not in self.queues]
        missing += [f"no {described(b)}" for b in topology.bindings if not self._routing.has(b)]
        if missing:
            raise TopologyMissing(f"{', '.join(missing)} on {self.url}; {_HOW_TO_DECLARE}")

    def publish(self, message: Message) -> None:
        """Put a message into every queue its address leads to. Raises `Unroutable`, `PublishRefused`."""
        if not self._has_exchange(message.exchange):
            raise Unroutable(f"exchange {message.exchange!r} does not exist on {self.url} (for {address(message)})")
        targets = self._route(message)
        if not targets:
            raise Unroutable(f"no queue is bound for {address(message)}")
        refusing = [queue.name for queue in targets if queue.full]
        for queue in targets:
            if not queue.full:
                queue.put(message)
        if refusing:
            raise PublishRefused(f"the broker refused {address(message)}: full: {', '.join(refusing)}")

    def attach(self, name: str, taker: Taker) -> bool:
        """Let a taker have what is in a queue: now, or (False) as soon as the queue exists."""
        queue = self.queues.get(name)
        if queue is None:
            self._awaiting.setdefault(name, {})[taker] = None
            return False
        taker.attach(queue)
        return True

    def attach_once(self, name: str, taker: Taker) -> None:
        """Let a taker have what is in a queue, until it is detached. Raises `TopologyMissing`."""
        queue = self.queues.get(name)
        if queue is None:
            raise TopologyMissing(f"there is no queue {name!r}")
        taker.attach(queue)

    def browse(self, name: str, on_held: OnHeld) -> MemoryBrowser:
        """Read a queue, alone. Raises `TopologyMissing`, `QueueInUse`."""
        queue = self.queues.get(name)
        if queue is None:
            raise TopologyMissing(f"there is no queue {name!r}")
        if isinstance(queue, MemoryStream):
            raise QueueInUse(f"{name} is a stream: letters are read from queues alone")
        if name in self._read:
            raise QueueInUse(f"{name} is being read or worked on by another tool; try again later")
        if queue.takers:
            raise QueueInUse(f"{name} has {len(queue.takers)} consumer(s): it is not a queue of dead letters")
        self._read.add(name)
        browser = MemoryBrowser(queue, on_held, lambda: self._read.discard(name))
        browser.attach(queue)
        return browser

    def delete_queue(self, name: str) -> None:
        """Delete a queue with its messages and bindings. Whoever consumes it is detached until it exists again."""
        queue = self.queues.pop(name, None)
        if queue is None:
            return
        self._routing.unbind_queue(name)
        queue.delete()
        for taker in list(queue.takers):
            taker.detach(f"queue '{name}' was deleted", REDECLARE_AFTER)
            if taker.is_lasting:
                self._awaiting.setdefault(name, {})[taker] = None
        for watcher in self._watchers:
            watcher(name)

    def _declare_exchange(self, exchange: Exchange) -> None:
        known = self._routing.exchanges.get(exchange.name)
        if known is None:
            self._routing.declare(exchange)
        else:
            ours, theirs = ({"type": one.kind, **one.arguments} for one in (exchange, known))
            _compare("exchange", exchange.name, ours, theirs)

    def _declare_queue(self, queue: Queue) -> None:
        known = self.queues.get(queue.name)
        if known is not None:
            _compare("queue", queue.name, queue.arguments, known.arguments)
            return
        kind = MemoryStream if queue.arguments.get("x-queue-type") == "stream" else MemoryQueue
        made = self.queues[queue.name] = kind(queue, self._bury, self._clock)
        for taker in self._awaiting.pop(queue.name, ()):
            taker.attach(made)

    def _bind(self, binding: Binding) -> None:
        destination = "exchange" if binding.to_exchange else "queue"
        exists = self._has_exchange if binding.to_exchange else self.queues.__contains__
        for kind, name, known in (
            ("exchange", binding.source, self._has_exchange(binding.source)),
            (destination, binding.destination, exists(binding.destination)),
        ):
            if not known:
                raise TopologyMissing(f"no {kind} '{name}' on {self.url}; {_HOW_TO_DECLARE}")
        self._routing.bind(binding)

    def _has_exchange(self, name: str) -> bool:
        return not name or name in self._routing.exchanges

    def _route(self, message: Message) -> list[MemoryQueue]:
        if not message.exchange:
            queue = self.queues.get(message.routing_key)
            return [] if queue is None else [queue]
        names = self._routing.route(message.exchange, message.routing_key, message.headers)
        return [self.queues[name] for name in names]

    def _bury(self, queue: MemoryQueue, entry: Entry, reason: str) -> None:
        """Dead-letter a message, or drop it where its queue has no dead-letter exchange."""
        exchange = queue.arguments.get("x-dead-letter-exchange")
        if exchange is None:
            return
        key = queue.arguments.get("x-dead-letter-routing-key", entry.message.routing_key)
        dead = died(entry.message, queue.name, reason, self._wall_clock())
        corpse = replace(dead, exchange=exchange, routing_key=key)
        if not self._dead_letter(corpse) and _at_least_once(queue):
            queue.stranded.append(corpse)
            self._wind()

    def _dead_letter(self, corpse: Message) -> bool:
        """Return whether there was a queue, and each one took it."""
        targets = [queue for queue in self._route(corpse) if not completes_a_cycle(corpse, queue.name)]
        if not targets or any(queue.full for queue in targets):
            return False
        for queue in targets:
            queue.put(corpse)
        return True

    def _dead_letter_again(self) -> None:
        """Try what is stranded once more: at-least-once dead-lettering drops nothing."""
        for queue in list(self.queues.values()):
            for _ in range(len(queue.stranded)):
                corpse = queue.stranded.popleft()
                if not self._dead_letter(corpse):
                    queue.stranded.append(corpse)
        self._wind()

    def _wind(self) -> None:
        stranded = any(queue.stranded for queue in self.queues.values())
        if self._again is not None and not stranded:
            self._again.cancel()
            self._again = None
        if stranded and self._again is None:
            self._again = self._clock.call_at(self._clock.time() + DEAD_LETTER_AGAIN, self._ring)

    def _ring(self) -> None:
        self._again = None
        self._dead_letter_again()

    def _wall_clock(self) -> datetime:
        """The time of day, by the loop's clock: where that is virtual, this is too."""
        now = self._clock.time()
        if self._epoch is None:
            self._epoch = (self._clock.now(), now)
        return self._epoch[0] + timedelta(seconds=now - self._epoch[1])


_HOW_TO_DECLARE = "declare it, or run with HOLDFAST_BROKER__TOPOLOGY=declare"


def _compare(kind: str, name: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    for argument in sorted({*ours, *theirs}):
        if (mine := ours.get(argument)) != (there := theirs.get(argument)):
            raise TopologyDrift(
                f"{kind} '{name}' exists with {argument} = {_shown(there)}, but this process declares {_shown(mine)}; "
                f"change the setting to match, or drain and delete the {kind} so that it is made anew"
            )


def _shown(value: object) -> str:
    return "none" if value is None else f"the value '{value}'"


def _at_least_once(queue: MemoryQueue) -> bool:
    """With anything but reject-publish RabbitMQ silently degrades to at most once."""
    wanted = {"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}
    return queue.is_quorum and wanted.items() <= queue.arguments.items()
