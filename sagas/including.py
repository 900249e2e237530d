"""From the class of a saga to a handler as data."""

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..broker import Clock
from ..config import Settings
from ..consumer import Context, HandlerSpec, Retry, Worker
from ..consumer.handler import Committed
from ..consumer.options import HandlerOptions
from ..consumer.registration import handler_spec
from ..events import ConfigurationError, Event
from ..telemetry import Emit
from .runner import SagaHandler
from .sweeper import Sweeper

if TYPE_CHECKING:
    from ..sql import Database
    from .declaring import Saga


@dataclass(frozen=True, slots=True)
class _MakeSweeper:
    """Makes the sweeper of a saga when its worker runs."""

    saga: "type[Saga]"
    queue: str
    within: "Database[Any]"

    def __call__(self, settings: Settings, clock: Clock, emit: Emit, committed: Committed) -> Sweeper:
        return Sweeper(self.saga, self.queue, self.within, settings, clock, emit, committed)


def saga_of(spec: HandlerSpec) -> "type[Saga] | None":
    """Return the saga that a handler runs; None for any other handler."""
    return spec.companion.saga if isinstance(spec.companion, _MakeSweeper) else None


def sagas_of(worker: Worker) -> "list[tuple[HandlerSpec, type[Saga]]]":
    """Return the handlers of a worker that run sagas, each with its saga."""
    return [(spec, saga) for spec in worker.handlers if (saga := saga_of(spec)) is not None]


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
    if within.dialect not in ("postgresql", "sqlite"):
        raise ConfigurationError(
            f"{where}: sagas are kept in PostgreSQL or SQLite, and this database is {within.dialect}"
        )
    for transition in graph.transitions:
        if inspect.iscoroutinefunction(transition.method) and not within.is_async:
            raise ConfigurationError(
                f"{where}: {transition.name} is `async def`; the sessions of its within= are for `def`"
            )
    options: HandlerOptions = {
        "name": graph.saga,
        "queue": queue,
        "retry": retry,
        "concurrency": concurrency,
        "publishes": saga.__publishes__,
    }
    spec = handler_spec(worker, _as_handler, (*graph.events, saga.__overdue__), None, options)
    runner = SagaHandler(saga, within, patience)
    spec.function, spec.is_async, spec.within = runner.function(), within.is_async, within
    spec.enter = runner.enter
    spec.companion = _MakeSweeper(saga, spec.queue, within)
    return spec


def _as_handler(event: Event, context: Context) -> None:
    """The signature of a saga's handler. What runs takes the transaction as well, whatever its database gives."""
