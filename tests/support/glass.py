"""An in-memory broker that tests look into."""

import uuid
from typing import Any

from holdfast.broker.memory import MemoryBroker, shared
from holdfast.broker.memory.queue import MemoryQueue
from holdfast.events import Message


class GlassBroker(MemoryBroker):
    """A session with a server of its own, or with the one of `url`, whose queues can be read."""

    def __init__(self, url: str | None = None, **options: Any) -> None:
        self.url = url or f"memory://{uuid.uuid4().hex}"
        super().__init__(self.url, **options)

    def depth(self, queue: str) -> int:
        """Return how many messages wait in the queue, without those that are with a consumer."""
        return len(self._queue(queue).ready)

    def messages(self, queue: str) -> list[Message]:
        """Return the messages that wait in the queue, head first; they stay there."""
        return [entry.message for entry in self._queue(queue).ready]

    def unsettled(self, queue: str) -> int:
        """Return how many messages of the queue are with a consumer, or wait for a queue to be dead-lettered to."""
        found = self._queue(queue)
        return found.unsettled + len(found.stranded)

    def _queue(self, name: str) -> MemoryQueue:
        return shared(self.url).queues[name]
