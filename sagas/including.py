"""From the class of a saga to a handler as data."""

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..broker import Clock
from ..config import Settings
from ..consumer import HandlerSpec, Retry
from ..consumer.handler import Committed
from ..consumer.registration import handler_spec
from ..events import ConfigurationError
from ..telemetry import Emit
from .runner import Runner
from .sweeper import Sweeper

if TYPE_CHECKING:
    from ..sql import Database
    from .declaring import Saga


@dataclass(frozen=True, slots=True)
class _Sweeping:
    """Makes the sweeper of a saga when its worker runs."""

    saga: "type[Saga]"
    queue: str
    within: "Database[Any]"

    def __call__(self, settings: Settings, clock: Clock, emit: Emit, committed: Committed) -> Sweeper:
        return Sweeper(self.saga, self.queue, self.within, settings, clock, emit, committed)


def saga_of(spec: HandlerSpec) -> "type[Saga] | None":
    """Return the saga that a handler runs; None for any other handler."""
    return spec.companion.saga if isinstance(spec.companion, _Sweeping) else None


def included(
    saga: "type[Saga]",
    worker: str,
    within: "Database[Any]",
    *,
    patience: float,
    queue: str | None,
    retry: Retry,
    concurrency: int | None,
) -> HandlerSpec:
    """Return the handler of a saga. Raises `ConfigurationError`, one line naming the worker and the saga."""
    graph = saga.graph()
    where = f"saga {saga.__name__} of worker {worker!r}"
    if not callable(getattr(within, "statements", None)):
        raise ConfigurationError(f"{where}: within={within!r}; give a Database of holdfast.sql")
    for transition in graph.transitions:
        if inspect.iscoroutinefunction(transition.method) and not within.is_async:
            raise ConfigurationError(
                f"{where}: {transition.name} is `async def`; the sessions of its within= are for `def`"
            )
    runner = Runner(saga, within, patience)
    spec = handler_spec(
        worker,
        runner.function(),
        (*graph.events, saga.__overdue__),
        name=graph.saga,
        queue=queue,
        retry=retry,
        timeout=60.0,
        concurrency=concurrency,
        prefetch=None,
        publishes=saga.__publishes__,
        idempotent=True,
        key=None,
        on_outage=None,
        within=within,
    )
    spec.takes_transaction = True
    spec.companion = _Sweeping(saga, spec.queue, within)
    return spec
