"""`Worker`: where users register handlers, and what runs them."""

import asyncio
import inspect
import re
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar, Unpack, overload

from ..broker import Topology
from ..config import Settings, load_settings, unknown_variables
from ..events import ConfigurationError, Event, HoldfastError
from ..idempotency import no_claims
from ..telemetry import Endpoint, Fact, FactLog, Links, Metrics, Serving, SettingUnknown, Watchdog, fan_out, open_spans
from .context import Context
from .dependencies import Dependencies
from .handler import HandlerSpec, Middleware, topology_of
from .options import HandlerOptions, spelled_out
from .registration import handler_spec
from .retry import Retry
from .runtime import Runtime

if TYPE_CHECKING:
    from ..sql import Database
    from .parts import Part

Function = TypeVar("Function", bound=Callable[..., Any])
Session = TypeVar("Session")
Result = TypeVar("Result")
Taken = TypeVar("Taken")
Lifespan: TypeAlias = Callable[..., AbstractAsyncContextManager[Any]]


F = TypeVar("F", bound=Callable[..., Any])


def _plain(word: str, functions: Iterable[F]) -> tuple[F, ...]:
    """Return the functions. Raises `ConfigurationError` for one that is async: its coroutine would never run."""
    functions = tuple(functions)
    for function in functions:
        if inspect.iscoroutinefunction(function):
            raise ConfigurationError(f"{word} {function.__name__} is an async function; write it with def")
    return functions


class Includable(Protocol):
    """A class that becomes a handler of a worker: a saga."""

    @classmethod
    def handler_of(
        cls,
        worker: str,
        within: "Database[Any]",
        *,
        patience: float,
        queue: str | None,
        retry: Retry,
        concurrency: int | None,
    ) -> HandlerSpec: ...


@dataclass(frozen=True, slots=True)
class Health:
    """The health of a worker: whether it takes messages from all its queues, and whether its event loop turns.

    Attributes:
        ready: True while messages are taken from every queue.
        missing: What stands against that, a text for each.
        live: False while the event loop stands still for longer than `HOLDFAST_WORKER__LIVE_LIMIT`.
        still: For how many seconds the event loop stands still now.
    """

    ready: bool
    missing: tuple[str, ...]
    live: bool = True
    still: float = 0.0


class Worker:
    """A named set of handlers that run together.

    Args:
        name: The worker's name: up to 100 letters, digits and `_.:-`. The names of its queues begin with it.
        settings: The settings; by default those of the environment, read when they are first needed.
        lifespan: An async context manager function, called with the worker or with nothing. It is entered before the
            first event and left after the drain; what it yields is `ctx.state`.
        middleware: Functions from handler to handler, around every handler; the first is the outermost.
        listeners: Functions that are called with each fact (`holdfast.telemetry`), beside the log.

    Raises:
        ConfigurationError: The name cannot begin a queue's name, or a middleware or listener is `async def`.
    """

    def __init__(
        self,
        name: str,
        *,
        settings: Settings | None = None,
        lifespan: Lifespan | None = None,
        middleware: Iterable[Middleware] = (),
        listeners: Iterable[Callable[[Fact], None]] = (),
    ) -> None:
        if not isinstance(name, str):
            raise ConfigurationError(f"Worker({type(name).__name__}): its name comes first, as in Worker('orders')")
        if not re.fullmatch(r"[A-Za-z0-9_.:-]{1,100}", name):
            raise ConfigurationError(f"Worker({name!r}): a name holds letters, digits and _.:- alone, at most 100")
        self.name = name
        self._settings = settings
        self._lifespan = lifespan
        self._middleware = _plain("middleware", middleware)
        self._listeners = _plain("listener", listeners)
        self._handlers: dict[str, HandlerSpec] = {}
        self._parts: dict[Part, Database[Any]] = {}
        self._runtime: Runtime | None = None
        self._dependencies = Dependencies()
        self._watchdog: Watchdog | None = None
        self._links = Links()

    @property
    def settings(self) -> Settings:
        """The settings given, or those of the environment.

        Raises:
            ConfigurationError: A variable of the environment has a wrong value.
        """
        if self._dependencies.settings is not None:
            return self._dependencies.settings
        if self._settings is None:
            self._settings = load_settings()
        return self._settings

    @property
    def handlers(self) -> tuple[HandlerSpec, ...]:
        """The registered handlers, in order."""
        return tuple(self._handlers.values())

    @overload
    def handler(  # a transaction of Django's has no session that a handler would take
        self, *events: type[Event] | str, within: "Database[None] | None" = ..., **options: Unpack[HandlerOptions]
    ) -> Callable[[Function], Function]: ...

    @overload
    def handler(
        self, *events: type[Event] | str, within: "Database[Session]", **options: Unpack[HandlerOptions]
    ) -> Callable[[Callable[[Taken, Context, Session], Result]], Callable[[Taken, Context, Session], Result]]: ...

    @spelled_out
    def handler(
        self, *events: type[Event] | str, within: "Database[Any] | None" = None, **options: Unpack[HandlerOptions]
    ) -> Any:
        """Register a function for one or more events.

        The function takes the event, and as an optional second parameter the `Context`. `async def` runs on the event
        loop, `def` in a thread.

        Args:
            *events: `Event` classes, or names of types. A name may hold `*` and `#` as in a topic binding; its body
                becomes what the first parameter is annotated with: an `Event` class, `dict` (the default) or `bytes`.
                Older versions of a class are upcast to it (see `upcast`).
            within: A database. The handler then takes a third parameter, a session or connection in a transaction:
                what it writes, the row of the inbox that says the event is handled, and the events of `ctx.publish`
                are committed together, by Holdfast. The row is kept for `HOLDFAST_SQL__INBOX_TTL` seconds.
            name: The handler's name; by default the function's.
            queue: The queue's name; by default `<worker>.<name>`. `Existing("name")` consumes a queue of somebody
                else, which is neither declared nor bound.
            exchange: The exchange that the queue is bound to; by default `HOLDFAST_BROKER__EXCHANGE`.
                `Existing("name")` is not declared.
            arguments: Further arguments of the queue, such as `{"x-single-active-consumer": True}`.
            retry: What happens after a failure.
            timeout: Seconds that one run may take.
            concurrency: The most runs at once in one process; by default `HOLDFAST_WORKER__CONCURRENCY`.
            prefetch: The most messages that are unacked at once; by default twice the concurrency.
            publishes: Event classes. `ctx.publish` then refuses every other type.
            idempotent: False for no claims: an event that completed may be handled again.
            key: What makes an event the same one instead of its id: the name of a field, or a function of the event.
            on_outage: What this handler does while the claim store is unavailable, instead of the setting.
            ordered: True, or an `Ordered`: the events of one key are handled one after the other, in the order in which
                they came. `ctx.key` and `ctx.fence` are the handler's then.

        Returns:
            A decorator that returns the function as it is.

        Raises:
            ConfigurationError: The handler cannot work; one line names it and says why.
        """

        if any(inspect.isroutine(event) for event in events):
            raise ConfigurationError(
                f"worker {self.name!r}: write @worker.handler(SomeEvent), with the event in parentheses"
            )

        def register(function: Function) -> Function:
            self._add(handler_spec(self.name, function, events, within, options))
            return function

        return register

    def include(
        self,
        part: "type[Includable] | Part",
        *,
        within: "Database[Any]",
        patience: float = 600.0,
        queue: str | None = None,
        retry: Retry = Retry(),  # noqa: B008 (frozen)
        concurrency: int | None = None,
    ) -> None:
        """Run a saga (`holdfast.sagas`) or a projection (`holdfast.journal`) in transactions of a database.

        Args:
            part: The class of the saga, or the projection.
            within: The database that holds its rows, and in which a saga's events are published.
            patience: Seconds that an event which the saga takes later may wait. It spends no attempt; then it is
                dead-lettered as `unexpected`.
            queue: The saga's queue; by default `<worker>.<saga>`. A projection has none.
            retry: What happens after a failure of the saga. A projection tries again for ever.
            concurrency: The most runs of the saga at once in one process; by default `HOLDFAST_WORKER__CONCURRENCY`.

        Raises:
            ConfigurationError: It cannot run; one line names it and says why.
        """
        if not 0 <= patience < float("inf"):
            raise ConfigurationError(f"worker {self.name!r}: patience={patience!r}; give seconds, 0 or more")
        make = getattr(part, "handler_of", None)
        if make is not None:
            self._add(make(self.name, within, patience=patience, queue=queue, retry=retry, concurrency=concurrency))
        elif not isinstance(part, type) and all(callable(getattr(part, name, None)) for name in ("check", "job")):
            self._add_part(part, within)
        else:
            raise ConfigurationError(
                f"worker {self.name!r}: include({part!r:.80}); give a Saga class of holdfast.sagas, or a Projection"
            )

    @property
    def parts(self) -> "tuple[Part, ...]":
        """The parts that are included besides the handlers, in order."""
        return tuple(self._parts)

    def _add_part(self, part: "Part", database: "Database[Any]") -> None:
        if not callable(getattr(database, "statements", None)):
            raise ConfigurationError(f"worker {self.name!r}: within={database!r:.80}; give a Database of holdfast.sql")
        if any(other.title == part.title for other in self._parts):
            raise ConfigurationError(f"worker {self.name!r} includes {part.title!r} twice")
        self._parts[part] = database

    def _add(self, spec: HandlerSpec) -> None:
        if spec.name in self._handlers:
            raise ConfigurationError(f"worker {self.name!r} has two handlers named {spec.name!r}; give one name=")
        twin = next((other.name for other in self.handlers if other.queue == spec.queue), None)
        if twin is not None:
            raise ConfigurationError(
                f"handlers {twin!r} and {spec.name!r} of worker {self.name!r} share queue {spec.queue!r}; "
                "each needs its own, or one would fail for the other"
            )
        self._handlers[spec.name] = spec

    def configure(self, *, settings: Settings | None = None, listeners: Iterable[Callable[[Fact], None]] = ()) -> None:
        """Replace the settings and add listeners, before an embedded worker runs.

        Args:
            settings: The settings in place of those that were given; None leaves them.
            listeners: Functions that are called with each fact, beside those that were given.
        """
        self._settings = settings or self._settings
        self._listeners += _plain("listener", listeners)

    def topology(self) -> Topology:
        """Return the exchanges, queues and bindings that this worker needs on the broker."""
        return topology_of(self.handlers, self.settings.broker)

    def health(self) -> Health:
        """Return the health of this worker, now. Any thread may call it."""
        runtime, watchdog = self._runtime, self._watchdog
        missing = (*self._links.down(), *runtime.missing()) if runtime is not None else ("not running",)
        still = watchdog.still() if watchdog is not None else 0.0
        return Health(not missing, missing, still <= self.settings.worker.live_limit, still)

    def stop(self, *, now: bool = False) -> None:
        """Stop a running worker: take nothing more, finish what runs, give back the rest.

        Call it on the worker's event loop, as a signal handler of the loop does.

        Args:
            now: True to give back what runs, too, without waiting for the grace period.
        """
        if self._runtime is not None:
            self._runtime.stop(now=now)

    async def run(
        self,
        *,
        only: Iterable[str] = (),
        concurrency: int | None = None,
        http: bool = False,
        dependencies: Dependencies = Dependencies(),  # noqa: B008 (frozen)
    ) -> int:
        """Handle events until `stop` is called or this is cancelled, however often; both drain first.

        It waits for an unavailable broker, and for an unavailable claim store unless `on_outage` is "process".

        Args:
            only: Names of the handlers to run; all where it is empty.
            concurrency: The most handlers at once, in place of `HOLDFAST_WORKER__CONCURRENCY`.
            http: Whether to serve metrics and probes at `HOLDFAST_HTTP__HOST` and `PORT`, as `holdfast run` does.
            dependencies: Clock, broker and claims in place of the real ones: `holdfast.testing` has its own.

        Returns:
            How many deliveries were given back unfinished.

        Raises:
            ConfigurationError: A setting or a handler is wrong, or there is no handler.
            TopologyError: Queues or exchanges on the broker are not as this worker needs them.
            BrokerUnavailable: The broker refuses the login or the virtual host.
            HoldfastError: The worker is running already.
        """
        if self._runtime is not None:
            raise HoldfastError(f"worker {self.name!r} is already running")
        only = tuple(only)
        handlers, parts = self.selected(only), {} if only else self._parts
        self._dependencies = dependencies
        settings = self.settings
        settings = settings.model_copy(update={"worker": settings.worker.with_concurrency(concurrency)})
        metrics = Metrics(now=dependencies.clock.now) if http else None
        self._links = Links(consumes=bool(handlers))
        spans = open_spans()
        log = FactLog(settings.log.successes)
        emit = fan_out(
            (log, spans, self._links, *((metrics,) if metrics else ()), *self._listeners, *dependencies.listeners)
        )
        for line in unknown_variables():
            emit(SettingUnknown(line))
        middleware = (*self._middleware, *dependencies.middleware)
        runtime = self._runtime = Runtime(self.name, handlers, parts, middleware, settings, emit, spans, dependencies)
        self._watchdog = Watchdog(settings.worker.block_limit, emit, runtime.event_of)
        unfinished = 0
        try:
            async with runtime.leaving.block(), AsyncExitStack() as stack:
                if metrics is not None:
                    live, ready = self._live, self._ready
                    endpoint = Endpoint(settings.http, collect=metrics.collect, live=live, ready=ready, emit=emit)
                    emit(Serving(endpoint.start()))
                    stack.callback(endpoint.stop)
                self._watchdog.start(asyncio.get_running_loop())
                stack.callback(self._watchdog.stop)
                stack.callback(setattr, runtime, "is_leaving", False)
                state = None
                async with runtime.starting.block():
                    state = await self._enter_lifespan(stack)
                stack.callback(setattr, runtime, "is_leaving", True)
                if runtime.starting.is_over:
                    return 0
                broker = await dependencies.open_broker(settings, emit)
                stack.push_async_callback(broker.close)
                has_claims = any(spec.claims(settings) for spec in handlers)
                claims = dependencies.open_claims(settings, emit) if has_claims else no_claims()
                unfinished = await runtime.run(broker, state, claims)
        finally:
            self._runtime = self._watchdog = None
            self._dependencies = Dependencies()
        return unfinished  # not within the block, which an interruption may leave

    def _live(self) -> tuple[bool, dict[str, Any]]:
        health = self.health()
        return health.live, {"live": health.live, "still": round(health.still, 3)}

    def _ready(self) -> tuple[bool, dict[str, Any]]:
        health = self.health()
        return health.ready, {"ready": health.ready, "missing": health.missing}

    async def _enter_lifespan(self, stack: AsyncExitStack) -> Any:
        if self._lifespan is None:
            return None
        takes_worker = bool(inspect.signature(self._lifespan).parameters)
        return await stack.enter_async_context(self._lifespan(self) if takes_worker else self._lifespan())

    def selected(self, only: Iterable[str] = ()) -> tuple[HandlerSpec, ...]:
        """Return some handlers, ready to run. What is included is checked as well.

        Args:
            only: Their names; all where it is empty.

        Raises:
            ConfigurationError: The worker has no handler of such a name, or none at all, or one cannot run.
        """
        only = tuple(only)
        if not (self._handlers or self._parts):
            raise ConfigurationError(
                f"worker {self.name!r} has no handlers; register one with @worker.handler(SomeEvent)"
            )
        unknown = [name for name in only if name not in self._handlers]
        if unknown:
            raise ConfigurationError(
                f"worker {self.name!r} has no handler {', '.join(map(repr, unknown))}; "
                f"it has {', '.join(self._handlers)}"
            )
        selected = tuple(spec for spec in self.handlers if not only or spec.name in only)
        for spec in selected:
            spec.prepare(self.settings.publisher.versions)
        for part, database in self._parts.items():
            part.check(database)
        return selected
