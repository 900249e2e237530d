"""One call of one handler, with no broker and no worker."""

from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from ..broker import REAL
from ..config import load_settings
from ..consumer import Context, Worker
from ..consumer.context import Surroundings
from ..consumer.in_flight import Run
from ..consumer.returned import finish
from ..consumer.run import compose
from ..events import Event, Headers, History, Incoming, Message, Metadata, read_metadata, seal
from ..idempotency import no_claims
from ..telemetry import open_spans
from .records import Published


@dataclass(slots=True, eq=False, repr=False)
class RecordingContext(Context):
    """A handler's context that keeps what was published with it.

    Attributes:
        published: The events, in order.
    """

    published: list[Published] = field(default_factory=list)

    def publish(
        self,
        event: Event,
        *,
        delay: float | None = None,
        key: str | None = None,
        event_id: str | None = None,
        headers: Headers | None = None,
    ) -> Awaitable[Metadata]:
        ready = Context.publish(self, event, delay=delay, key=key, event_id=event_id, headers=headers)
        metadata = read_metadata(self._run.pending[-1], self._surroundings.clock.now())
        self.published.append(Published(event, metadata, delay))
        return ready


async def call(
    handler: Callable[..., Any],
    event: Event | dict[str, Any] | bytes,
    *,
    attempt: int = 1,
    state: Any = None,
    redelivered: bool = False,
    metadata: Metadata | None = None,
    headers: Headers | None = None,
) -> RecordingContext:
    """Call a handler once, as a worker would: `async def` on the loop, `def` in a thread, with or without a context.

    Retries, time-outs, middleware and idempotency are the worker's: for those there is `Harness`. Raises whatever the
    handler raises.

    Args:
        handler: The function.
        event: The event; a `dict` or `bytes` for a handler of a named type.
        attempt: The number of the attempt that the handler sees.
        state: What the worker's lifespan would yield.
        redelivered: The broker's flag that the handler sees.
        metadata: The event's metadata; by default new ones.
        headers: The headers that its message came with.

    Returns:
        The context that the handler was given; `published` on it are its events.

    Raises:
        WorkNotDone: A worker would dead-letter the event for what the handler returned.
    """
    worker = Worker("call")
    worker.handler(type(event) if isinstance(event, Event) else "call.event")(handler)
    [spec] = worker.handlers
    if metadata is None:
        metadata = seal(event, source="test").metadata if isinstance(event, Event) else _some_metadata()
    settings, lease = load_settings(broker={"url": "memory://"}), no_claims().lease
    around = Surroundings(
        spec.queue, spec.name, worker.name, state, settings, lease, open_spans(), publishes=spec.publish_types
    )
    run = Run(lease.owner, Incoming(Message(b"", headers=headers), metadata, History(), has_id=True))
    context = RecordingContext(metadata, attempt, spec.queue, redelivered, state, around, run)
    with ThreadPoolExecutor(1) as threads:
        await finish(await compose(spec, (), threads)(event, context))
    return context


def _some_metadata() -> Metadata:
    return Metadata(event_id="call", event_type="call.event", time=REAL.now())
