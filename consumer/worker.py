"""`Worker`: where users register handlers, and what runs them."""

import asyncio
import inspect
import re
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar, Unpack, overload

from ..broker import Topology
from ..config import Settings, load_settings
from ..events import ConfigurationError, Event, HoldfastError
from ..idempotency import no_claims
from ..telemetry import Endpoint, Fact, FactLog, Links, Metrics, Serving, Watchdog, fan_out, open_spans
from .context import Context
from .dependencies import Dependencies
from .handler import HandlerSpec, Middleware, topology_of
from .options import HandlerOptions, spelled_out
from .registration import handler_spec
from .retry import Retry
from .runtime import Runtime

if TYPE_CHECKING:
    from ..sql import Database

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
    """Whether a worker takes messages from all its queues, and what is missing where it does not. `live` is False
    while its event loop stands still for longer than `HOLDFAST_WORKER__LIVE_LIMIT`: for `still` seconds now."""

    ready: bool
    missing: tuple[str, ...]
    live: bool = True
    still: float = 0.0


class Worker:
    """A named set of handlers that run together.

    `lifespan` is an async context manager function, called with the worker (or with nothing); what it yields is
    `ctx.state`. `middleware` wraps every handler, the first outermost. `listeners` are called with each fact
    (`holdfast.telemetry`); the log is one of them already.

    Raises `ConfigurationError` for a name that cannot begin a queue's name.
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
        self._runtime: Runtime | None = None
        self._dependencies = Dependencies()
        self._watchdog: Watchdog | None = None
        self._links = Links()

    @property
    def settings(self) -> Settings:
        """The settings given, or those of the environment. Raises `ConfigurationError`."""
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
        """Register a function for one or more events, each an `Event` class or the name of a type.

        A named type becomes what the first parameter is annotated with: an `Event` class, `dict` (the default) or
        `bytes`; its name may hold `*` and `#` as in a topic binding. The second parameter, the `Context`, is optional.
        `async def` runs on the loop, `def` in a thread. `timeout` is in seconds, `retry` says when a failure is tried
        again. `name` is the function's unless given, `queue` is `<worker>.<name>`. `concurrency` bounds this handler's
        runs at once, `prefetch` what it has unacked.

        The queue is bound to `exchange` where that is given, and else to `HOLDFAST_BROKER__EXCHANGE`; `arguments` are
        further ones of the queue, such as `{"x-single-active-consumer": True}`. `queue=Existing("name")` consumes a
        queue of somebody else, which is neither declared nor bound to an exchange of events, and
        `exchange=Existing("name")` binds to an exchange that is not declared.

        Where `publishes` names event classes, `ctx.publish` refuses every other type. Of an event with several versions
        a handler takes those it is given; older ones are upcast to it (see `upcast`).

        An event that completed is not handled again within `HOLDFAST_IDEMPOTENCY__TTL`, unless `idempotent` is False.
        What makes it the same event is its id, or what `key` gives: the name of a field, or a function of the event.
        `on_outage` says what this handler does while the claim store is away, instead of the setting.

        `within` is a database: the handler then takes a third parameter, a session (or connection) in a transaction.
        What it writes, the row of the inbox that says the event is handled, and the events of `ctx.publish` are
        committed together. The event is not handled again for as long as its row is kept
        (`HOLDFAST_SQL__INBOX_TTL`), also where no claim store is named. The handler leaves the commit to Holdfast.

        Raises `ConfigurationError`, one line naming the handler.
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
        saga: type[Includable],
        *,
        within: "Database[Any]",
        patience: float = 600.0,
        queue: str | None = None,
        retry: Retry = Retry(),  # noqa: B008 (frozen)
        concurrency: int | None = None,
    ) -> None:
        """Run a saga (`holdfast.sagas`): one handler for all its events, in transactions of a database.

        Its queue is `<worker>.<saga>` unless given. An event that the saga takes later waits for at most `patience`
        seconds and spends no attempt; then it is dead-lettered as `unexpected`.

        Raises `ConfigurationError`, one line naming the saga.
        """
        if not 0 <= patience < float("inf"):
            raise ConfigurationError(f"worker {self.name!r}: patience={patience!r}; give seconds, 0 or more")
        make = getattr(saga, "handler_of", None)
        if make is None:
            raise ConfigurationError(f"worker {self.name!r}: include({saga!r}); give a Saga class of holdfast.sagas")
        self._add(make(self.name, within, patience=patience, queue=queue, retry=retry, concurrency=concurrency))

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
        """Replace the settings and add listeners, before the worker runs: for whoever embeds it."""
        self._settings = settings or self._settings
        self._listeners += _plain("listener", listeners)

    def topology(self) -> Topology:
        """What this worker needs on the broker."""
        return topology_of(self.handlers, self.settings.broker)

    def health(self) -> Health:
        """Whether it takes messages now. Any thread may ask."""
        runtime, watchdog = self._runtime, self._watchdog
        missing = (*self._links.down(), *runtime.missing()) if runtime is not None else ("not running",)
        still = watchdog.still() if watchdog is not None else 0.0
        return Health(not missing, missing, still <= self.settings.worker.live_limit, still)

    def stop(self, *, now: bool = False) -> None:
        """Tell a running worker to stop: take nothing more, finish what runs within the grace period (with `now`
        not even that), give back the rest. Call it on the worker's loop, as a signal handler of the loop does."""
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
        """Handle events until `stop` is called or this is cancelled; both drain first.

        `only` names the handlers to run (all where empty), `concurrency` overrides the setting. With `http`, metrics
        and probes are served at `HOLDFAST_HTTP__HOST` and `PORT` meanwhile, as `holdfast run` does. An unavailable
        broker is waited for; so is a claim store, or the worker goes on without it (`on_outage`).
        `dependencies` replace the real ones: `holdfast.testing` has a clock of its own.

        Returns how many deliveries were given back unfinished.

        Raises `ConfigurationError`, `TopologyError`, and `BrokerUnavailable` where login or virtual host are refused.
        """
        if self._runtime is not None:
            raise HoldfastError(f"worker {self.name!r} is already running")
        handlers = self.selected(only)
        self._dependencies = dependencies
        settings = self._with(concurrency)
        metrics = Metrics(now=dependencies.clock.now) if http else None
        self._links = Links()
        spans = open_spans()
        log = FactLog(settings.log.successes)
        emit = fan_out(
            (log, spans, self._links, *((metrics,) if metrics else ()), *self._listeners, *dependencies.listeners)
        )
        middleware = (*self._middleware, *dependencies.middleware)
        runtime = self._runtime = Runtime(self.name, handlers, middleware, settings, emit, spans, dependencies)
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
        """The handlers that `only` names, all where it is empty. Raises `ConfigurationError` for a name it has not, and
        where there is none."""
        only = tuple(only)
        if not self._handlers:
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
        return selected

    def _with(self, concurrency: int | None) -> Settings:
        if concurrency is None:
            return self.settings
        if concurrency < 1:
            raise ConfigurationError(f"concurrency={concurrency}: give a whole number from 1")
        worker = self.settings.worker.model_copy(update={"concurrency": concurrency})
        return self.settings.model_copy(update={"worker": worker})
