"""The transaction that a handler with `within=` runs in: inbox row, the user's function, its events, one commit."""

import asyncio
import inspect
import math
from collections.abc import Awaitable, Callable
from typing import Any

from ..broker import Clock
from ..config import SqlSettings
from ..events import HoldfastError
from ..events import headers as h
from ..idempotency import Availability
from ..publisher import message_for
from ..sql import (
    Database,
    DatabaseUnavailable,
    Opened,
    OpenedAsync,
    OpenerAsync,
    Outgoing,
    Params,
    Statements,
    Steps,
    TransactionEnded,
    first_line,
    is_aborted,
    is_locked,
    trouble,
)
from ..telemetry import Emit, InboxAnswered
from .claims import digests_of
from .context import RUNNING, Context, run_of, settings_of
from .errors import FingerprintMismatch, WorkNotDone
from .following import Follower
from .handler import Handler, HandlerSpec
from .in_flight import Run
from .outcome import AlreadyDone, ClaimsUnavailable, Ended, HeldElsewhere, Refused
from .returned import finish, refuse_work

_TRIES = 4  # of a transaction that the database ended in favour of another


class DatabaseAvailability(Availability):
    """Whether a handler's database can be used, with its schema."""

    reason = "database"

    def __init__(
        self,
        database: Database[Any],
        settings: SqlSettings,
        clock: Clock,
        luck: Callable[[], float],
        emit: Emit,
        changes: asyncio.Event,
    ) -> None:
        super().__init__(clock, luck, emit, HoldfastError, changes)
        self.database = database
        self.settings = settings

    async def start(self) -> None:
        """Check the schema. A database that is unavailable is waited for, paused. Raises `ConfigurationError`."""
        try:
            await self.probe()
        except DatabaseUnavailable as error:
            self.note_outage(error)

    async def probe(self) -> None:
        """Read the version of the schema."""
        await self.database.check(self.settings.schema, keeps=self.settings.keeps)


class _RolledBack(Exception):
    """The end of a rehearsal's transaction."""


class Within:
    """Runs one handler's function in transactions of its database; `committed` is called when one has events. Without
    it, each transaction is rolled back at its end."""

    def __init__(
        self,
        spec: HandlerSpec,
        available: DatabaseAvailability,
        committed: Callable[[], Awaitable[None]] | None,
        emit: Emit,
        follower: Follower,
    ) -> None:
        self._spec = spec
        self._available = available
        self._committed = committed
        self._emit = emit
        self._follower = follower
        self._loop = asyncio.get_running_loop()
        self._database = available.database
        self._statements: Statements = self._database.statements(available.settings.schema)

    def function(self) -> Callable[[Any, Context], Any]:
        """Return the user's function as one of event and context, which opens the transaction it runs in."""
        opener, function = self._database.opener, self._called()
        is_ours = self._spec.enter is not None

        if isinstance(opener, OpenerAsync):

            async def on_loop(event: Any, context: Context) -> None:
                run = run_of(context)
                async with opener.begin(self._enter(run, event)) as opened:
                    token = RUNNING.set(context)
                    try:
                        returned = await function(event, context, opened if is_ours else opened.user)
                        if returned is not None:
                            await finish(returned)
                    except BaseException as error:
                        run.raised = None if is_ours else error
                        raise
                    finally:
                        RUNNING.reset(token)
                    self._check(opened)
                    if h.FOLLOW in run.carried:
                        await opened.flush()
                        await self._open(run)
                    opened.last = self._publishing(run)

            return on_loop

        def in_thread(event: Any, context: Context) -> None:
            run = run_of(context)
            with opener.begin(self._enter(run, event)) as opened:
                token = RUNNING.set(context)
                try:
                    returned = function(event, context, opened if is_ours else opened.user)
                    if inspect.isawaitable(returned):
                        raise WorkNotDone("the handler returned work to be awaited, after its transaction")
                    refuse_work(returned)
                except BaseException as error:
                    run.raised = None if is_ours else error
                    raise
                finally:
                    RUNNING.reset(token)
                self._check(opened)
                if h.FOLLOW in run.carried:
                    opened.flush()
                    asyncio.run_coroutine_threadsafe(self._open(run), self._loop).result()
                opened.last = self._publishing(run)

        return in_thread

    def _called(self) -> Callable[[Any, Context, Any], Any]:
        """Return the user's function as one of event, context and session. It takes no session where the ORM finds the
        connection by itself."""
        function = self._spec.function
        if self._database.gives_session or self._spec.enter is not None:
            return function
        if self._spec.takes_context:
            return lambda event, context, _: function(event, context)
        return lambda event, context, _: function(event)

    def handler(self, transact: Handler) -> Handler:
        """Return a handler that runs a transaction again where the database asks for it, and waits for a database that
        is unavailable. Neither spends an attempt."""

        async def call(event: Any, context: Context) -> None:
            run = run_of(context)
            for tries in range(1, _TRIES + 1):
                run.begin_transaction()
                try:
                    await transact(event, context)
                    break
                except _RolledBack:
                    settings = settings_of(context)
                    run.pending += [message_for(envelope, settings, delay) for envelope, delay, *_ in run.events or ()]
                    return
                except Exception as error:
                    if await self._runs_again(error, run, tries):
                        continue
                    if isinstance(error, TransactionEnded) and run.row is not None:
                        await self._database.run(self._withdraw(run.row))  # it is there if that was a commit
                    self._explain(error, run)
                    raise
                finally:
                    if run.inbox is not None:
                        self._emit(InboxAnswered(self._spec.queue, run.inbox))
            for fact in run.facts:
                self._emit(fact)
            if run.events and self._committed is not None:
                await self._committed()

        return call

    async def _runs_again(self, error: Exception, run: Run, tries: int) -> bool:
        """Return whether a transaction that failed runs again at once. Raises `Ended` where the event is to wait."""
        is_ours = run.raised is None
        is_begun = not is_ours or run.inbox is not None
        cause = trouble(error, is_ours=is_ours)
        if cause == "unavailable" or (cause == "again" and not is_begun and is_locked(error)):
            await self._wait(error)
        if cause == "again" and tries == _TRIES and (not is_begun or self._spec.enter is not None):
            run.inbox = "busy"
            raise Ended(HeldElsewhere(math.inf)) from error
        if cause == "conflict" and tries == _TRIES:  # others append to the aggregate meanwhile: it is their turn
            raise Ended(HeldElsewhere(math.inf)) from error
        return cause in ("again", "conflict") and tries < _TRIES

    def _enter(self, run: Run, event: Any) -> Steps[None]:
        """Write the inbox row, and note what it says of the event. Raises `Ended` where it is not to be handled now."""
        if not self._spec.idempotent:
            return
        digest, fingerprint = digests_of(self._spec, run.incoming, event)
        run.row = {"queue": self._spec.queue, "event": digest, "fingerprint": fingerprint}
        params, statement = run.row, self._statements.enter
        if self._spec.enter is not None:
            statement, more = self._spec.enter(event, self._statements.schema)
            params = {**params, **more}
        rows = yield statement, params
        if rows:
            run.inbox, run.read = "fresh", rows[0]
            return
        known = yield self._statements.known, params
        if not known:
            run.inbox = "busy"
            raise Ended(HeldElsewhere(math.inf))
        if bytes(known[0][0]) == fingerprint:
            run.inbox = "duplicate"
            raise Ended(AlreadyDone())
        run.inbox = "mismatch"
        error = FingerprintMismatch("this key came before, with another payload")
        raise Ended(Refused(error, "fingerprint-mismatch"))

    def _withdraw(self, row: Params) -> Steps[None]:
        yield self._statements.withdraw, row

    async def _open(self, run: Run) -> None:
        """Put what the transaction of a followed event publishes on the board, before it can commit."""
        await self._follower.open(run, [(envelope.metadata, delay) for envelope, delay, *_ in run.events or ()])

    def _publishing(self, run: Run) -> Steps[None]:
        """Write what the handler has published, also while its session was flushed."""
        if run.events:
            yield from self._statements.inserts([Outgoing(*each) for each in run.events])
        if (proof := self._proof(run)) is not None and not (yield proof):
            raise self._ended()
        if self._committed is None:
            raise _RolledBack

    def _check(self, opened: Opened | OpenedAsync) -> None:
        if not opened.is_open():
            raise self._ended()

    def _proof(self, run: Run) -> tuple[str, Params] | None:
        """Return a statement by which the transaction is seen to stand, where no other shows it.

        A function may catch the error of a statement of its own. PostgreSQL has ended the transaction then, and answers
        a commit without an error; MySQL, after a deadlock, begins another.
        """
        is_shown = self._database.dialect == "postgresql" and bool(run.events)
        if is_shown or self._spec.enter is not None:
            return None
        return ("select 1", {}) if run.row is None else (self._statements.known, run.row)

    def _ended(self) -> TransactionEnded:
        return TransactionEnded(
            f"the transaction of handler {self._spec.name!r} was over before the handler was: leave commit and "
            "rollback to Holdfast, and try a statement that may fail in a savepoint"
        )

    def _explain(self, error: Exception, run: Run) -> None:
        """Raise what the first statement of ours says that a transaction which was over had to refuse."""
        if is_aborted(error) and run.raised is None:
            raise self._ended() from error

    async def _wait(self, error: Exception) -> None:
        unavailable = DatabaseUnavailable(f"database {self._database.name}: {first_line(error)}")
        self._available.note_outage(unavailable)
        await self._available.until_paused()
        raise Ended(ClaimsUnavailable()) from error
