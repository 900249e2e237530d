"""Running the user's function: on the loop or in a thread, within its time, whatever it raises."""

import asyncio
import contextvars
from asyncio import CancelledError, Task
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from ..broker import Countdown
from ..config import PublisherSettings
from ..events import ConfigurationError, Message, Reject, RetryLater, headers
from ..publisher import one_by_one, send
from ..telemetry import HandlerAbandoned, mark_heard
from .context import Context, Surroundings, note_thread
from .dependencies import Tools
from .errors import HandlerExit, HandlerTimeout, WorkNotDone
from .failure import cause_of
from .following import Follower
from .handler import Handler, HandlerSpec, Middleware
from .in_flight import InFlight, Run
from .outcome import Abandoned, Ended, Failed, Interrupted, Outcome, Refused, Succeeded, Unpublished
from .returned import check_finished, finish, watched

if TYPE_CHECKING:
    from .within import Within

_SUCCEEDED: Final = Succeeded()


class Ran:
    """What came of running a handler: how often it ran, and the seconds from the first run's begin."""

    __slots__ = ("outcome", "runs", "seconds")

    def __init__(self, outcome: Outcome, runs: int = 0, seconds: float = 0.0) -> None:
        self.outcome, self.runs, self.seconds = outcome, runs, seconds


class Runner:
    """Runs one handler, each time in the task of its delivery, within its time.

    A handler that is over its time is cancelled. One that has not ended `cancel_grace` seconds later is abandoned: its
    delivery goes on without it, by `on_abandoned`, and its slot stays taken until it ends at last.
    """

    def __init__(
        self,
        spec: HandlerSpec,
        handler: Handler,
        around: Surroundings,
        tools: Tools,
        follower: Follower,
        *,
        cancel_grace: float,
        on_abandoned: Callable[[InFlight, Ran], None],
    ) -> None:
        self._spec = spec
        self._handler = handler
        self._around, self._state, self._time = around, around.state, tools.clock.precise
        self._tools = tools
        self._on_abandoned = on_abandoned
        self._follower = follower
        self._overdue: Countdown[InFlight] = Countdown(spec.timeout, self._cancel, tools.clock)
        self._ignoring: Countdown[InFlight] = Countdown(cancel_grace, self._abandon, tools.clock)

    async def run(self, event: Any, flight: InFlight, before: Ran) -> Ran:
        """Run the handler once more, after the runs of `before`. Raises nothing.

        A handler that was abandoned returns here at last; its delivery has ended without it.
        """
        incoming, around, task, time = flight.incoming, self._around, flight.task, self._time
        began = time()
        claim = flight.claimed.claim
        owner = claim.owner if claim is not None else around.lease.owner
        flight.run = run = Run(owner, incoming)
        if self._spec.ordered is not None:
            turn: Any = flight.delivery.consumer
            run.turn = turn
        attempt, redelivered = incoming.history.attempt, flight.delivery.redelivered
        context = Context(incoming.metadata, attempt, self._spec.queue, redelivered, self._state, around, run)
        failure: BaseException | None = None
        self._overdue.add(flight)
        try:
            returned = await self._handler(event, context)
            if returned is not None:
                await finish(returned)
            if run.calls:
                check_finished(run.calls)
        except BaseException as error:  # noqa: BLE001 (whatever a handler raises has a defined end)
            failure = error
        self._overdue.remove(flight)
        run.is_over = True
        if task.cancelling() and flight.cancelled_for is None and not isinstance(failure, CancelledError):
            await _uncancel(task)  # up to Python 3.12 a TaskGroup that failed leaves its cancellation behind
        if failure is not None:
            outcome = await self._after_error(flight, task, run, failure)
            failure = None  # its traceback holds this frame
        elif task.cancelling():
            outcome = await self._after_cancellation(flight, run, None)
        elif run.pending or (headers.FOLLOW in run.carried and self._follower.opens_always):
            outcome = await self._publish(run)
        else:
            outcome = _SUCCEEDED
        return Ran(outcome, before.runs + 1, before.seconds + time() - began)

    async def _publish(self, run: Run) -> Outcome:
        try:
            settings = self._around.settings
            if run.events is None and headers.FOLLOW in run.carried:
                await self._follower.open(run, run.followed)
            await publish_pending(
                self._tools, run.pending, settings.publisher, patience=settings.broker.publish_timeout
            )
        except CancelledError:
            return Interrupted()
        except Exception as error:  # noqa: BLE001 (whatever keeps an event from being published)
            return Unpublished(error)
        return Succeeded(len(run.pending))

    async def _after_error(self, flight: InFlight, task: Task[None], run: Run, error: BaseException) -> Outcome:
        ends_tasks = isinstance(error, CancelledError | SystemExit | KeyboardInterrupt | GeneratorExit)
        if ends_tasks or task.cancelling():
            return await self._after_cancellation(flight, run, error)
        if isinstance(error, Ended):
            return error.outcome
        if isinstance(error, RetryLater):
            cause = cause_of(error)  # the failure; the request to wait says nothing of it
            return Failed(error if cause is None else cause, error.after)
        if isinstance(error, Reject | WorkNotDone):
            return Refused(error, "refused")
        return Failed(error)

    async def _after_cancellation(self, flight: InFlight, run: Run, error: BaseException | None) -> Outcome:
        """Return why the handler ended: a worker that stops comes first, then the time; the rest it did itself."""
        if flight.is_abandoned:
            return Interrupted()  # nobody asks
        self._ignoring.remove(flight)
        if flight.cancelled_for == "stop":
            return Interrupted()
        await _uncancel(flight.task)
        if flight.cancelled_for == "time":
            flight.cancelled_for = None
            return self._timed_out(flight, run.threads, error)
        is_cancelled = error is None or isinstance(error, CancelledError)
        text = "was cancelled from within" if is_cancelled else f"raised {type(error).__name__}({error})"
        return Failed(_because(HandlerExit(f"the handler {text}"), error))

    def _timed_out(
        self, flight: InFlight, still_running: Iterable["asyncio.Future[Any]"], error: BaseException | None = None
    ) -> Failed | Abandoned:
        """Return the time-out as an outcome. A handler that goes on keeps its slot."""
        timeout = _because(HandlerTimeout(f"the handler did not finish within {self._spec.timeout:g} s"), error)
        left = [future for future in still_running if not future.done()]
        if not left:
            return Failed(timeout)
        flight.slot.abandon(left)
        spec = self._spec
        self._tools.emit(HandlerAbandoned(spec.queue, spec.name, flight.incoming.metadata.event_id, spec.timeout))
        return Abandoned(timeout)

    def _cancel(self, flight: InFlight) -> None:
        """The handler is over its time."""
        flight.cancel("time")
        self._ignoring.add(flight)

    def _abandon(self, flight: InFlight) -> None:
        """The handler ignores its cancellation."""
        if flight.cancelled_for == "time" and not flight.task.done():
            flight.is_abandoned = True
            outcome = self._timed_out(flight, [flight.task])
            self._on_abandoned(flight, Ran(outcome, 1, self._spec.timeout + self._ignoring.seconds))


async def publish_pending(
    tools: Tools, pending: Iterable[Message], settings: PublisherSettings, *, patience: float
) -> None:
    """Return once all that a handler published is confirmed. A refused message is tried again, for `patience` seconds
    from the first refusal on: another run of the handler costs more.

    The ids are derived: if the handler runs again, it publishes the same. Raises `PublishError`.
    """

    async def publish(message: Message) -> None:
        await send(tools.broker, message, settings, timeout=None, emit=tools.emit, spans=tools.spans, clock=tools.clock)

    await one_by_one(publish, pending, patience=patience, clock=tools.clock, luck=tools.luck)


async def _uncancel(task: Task[None]) -> None:
    while task.uncancel():
        pass
    with suppress(CancelledError):  # one that was asked for and not yet raised
        await asyncio.sleep(0)


def _because(error: Exception, cause: BaseException | None) -> Exception:
    error.__cause__ = cause
    return error


def compose(
    spec: HandlerSpec, middleware: tuple[Middleware, ...], threads: Executor, within: "Within | None" = None
) -> Handler:
    """Return the user's function in one form, inside the middleware; the first of those is the outermost. `within` is
    the transaction it runs in, the innermost.

    Raises `ConfigurationError` for middleware that returns no function.
    """
    function = spec.function if within is None else within.function()
    takes_context = spec.takes_context or within is not None
    handler = _on_loop(function, takes_context) if spec.is_async else _in_thread(function, takes_context, threads)
    if within is not None:
        handler = within.handler(handler)
    for wrap in reversed(middleware):
        wrapped: Any = wrap(watched(handler))
        if not callable(wrapped):
            name = getattr(wrap, "__name__", wrap)
            raise ConfigurationError(f"middleware {name}: it returned {wrapped!r:.80}, not a function (event, ctx)")
        handler = wrapped
    return handler


def _on_loop(function: Callable[..., Any], takes_context: bool) -> Handler:
    if takes_context:
        return function

    def call(event: Any, _: Context) -> Any:
        return function(event)

    return call


def _in_thread(function: Callable[..., Any], takes_context: bool, threads: Executor) -> Handler:
    async def call(event: Any, context: Context) -> Any:
        arguments = (event, context) if takes_context else (event,)
        run = contextvars.copy_context().run
        future = asyncio.get_running_loop().run_in_executor(threads, run, _thread_safe, function, arguments)
        try:
            returned: Any = await asyncio.shield(future)
            return returned if returned is None else await finish(returned)
        except CancelledError:
            if not future.done():
                future.add_done_callback(mark_heard)
                note_thread(context, future)
            raise

    return call


def _thread_safe(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """A future cannot carry every exception across threads."""
    try:
        return function(*arguments)
    except (SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration) as error:
        raise HandlerExit(f"the handler raised {type(error).__name__}({error})") from error
