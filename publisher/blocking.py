"""`BlockingPublisher`: confirmed publishing for programs without an event loop."""

import asyncio
import atexit
import os
import threading
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Future, wait
from contextlib import suppress
from functools import wraps
from itertools import islice
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from ..config import Settings
from ..events import Envelope, Event, Metadata, PublishError
from ..telemetry import Emit
from .publisher import PIPELINE, Publisher

P = ParamSpec("P")
R = TypeVar("R")


def _blocking(
    method: Callable[Concatenate[Publisher, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate["BlockingPublisher", P], R]:
    """Return a method that does what one of `Publisher` does, and returns once it is done."""

    @wraps(method)
    def call(self: "BlockingPublisher", /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._run(lambda: method(self._publisher, *args, **kwargs))

    return call


class BlockingPublisher:
    """A `Publisher` whose methods block: for scripts, WSGI applications and threads.

    `with BlockingPublisher() as publisher: publisher.publish(event)`. Arguments, results and errors are those of
    `Publisher`. It connects with the first publish, so a module may hold one without `with`; `close` ends it, and so
    does the end of the program. Any number of threads may use it at once. Its connection lives in a thread of its own,
    which answers heartbeats while the program does other work, and connects again when the connection is lost.

    An open publisher is of no use in a forked process, where its methods raise `PublishError`: create or first use it
    after the fork.

    Args:
        settings: The settings; by default those of the environment.
        source: The name of this program in the events that it publishes.
        emit: A function that is called with each fact, in the publisher's thread; by default the log.
    """

    def __init__(self, settings: Settings | None = None, *, source: str = "", emit: Emit | None = None) -> None:
        self._publisher = Publisher(settings, source=source, emit=emit)
        self._lock = threading.RLock()
        self._calls = set[Future[Any]]()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._process: int | None = None
        self._is_closed = False

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    publish = _blocking(Publisher.publish)

    def publish_many(
        self, events: Iterable[Event | Envelope], *, delay: float | None = None
    ) -> list[Metadata | PublishError]:
        """Publish many events, 300 at a time.

        Raises any error that is no `PublishError`, among them those of `events` itself.

        Args:
            events: The events, or envelopes. They are read in the calling thread.
            delay: Seconds until they are delivered, at most `HOLDFAST_BROKER__MAX_DELAY`.

        Returns:
            A result for each event, in order: its metadata or its `PublishError`.
        """
        results: list[Metadata | PublishError] = []
        remaining = iter(events)
        while batch := list(islice(remaining, PIPELINE)):
            try:
                results += self._publish_batch(batch, delay=delay)
            except PublishError as error:  # it is closed: what was published before is known
                results += [error] * len(batch)
        return results

    _publish_batch = _blocking(Publisher.publish_many)

    def close(self) -> None:
        """Wait for the publishes of other threads, then close the connection. A closed publisher opens no more."""
        if self._process not in (None, os.getpid()):  # a child closes nothing of its parent's
            return
        self._refuse_listeners()
        with self._lock:
            self._is_closed = True
            loop, self._loop = self._loop, None
        if loop is None:
            return
        wait(self._calls)
        try:
            asyncio.run_coroutine_threadsafe(self._publisher.__aexit__(None, None, None), loop).result()
        finally:
            self._end(loop)

    def _run(self, call: Callable[[], Coroutine[Any, Any, R]]) -> R:
        if self._process not in (None, os.getpid()):  # asked without the lock, which the fork may have copied locked
            raise PublishError(
                f"this publisher was opened by process {self._process}, of which process {os.getpid()} is a fork; "
                "create or first use a BlockingPublisher after the fork"
            )
        self._refuse_listeners()
        with self._lock:
            loop = self._open()
            running = asyncio.run_coroutine_threadsafe(call(), loop)
            self._calls.add(running)
        running.add_done_callback(self._calls.discard)
        try:
            return running.result()
        except BaseException:
            running.cancel()  # of a program that is interrupted
            raise

    def _refuse_listeners(self) -> None:
        if threading.current_thread() is self._thread:
            raise PublishError(
                "a listener of this publisher's facts can neither publish through it nor close it: it would wait for "
                "itself"
            )

    def _open(self) -> asyncio.AbstractEventLoop:
        """Return the loop, started and connected when it is first asked for."""
        with self._lock:
            if self._is_closed:
                raise PublishError("this publisher is closed")
            if self._loop is not None:
                return self._loop
            loop = asyncio.new_event_loop()
            thread = threading.Thread(target=_turn, args=(loop,), name="holdfast publisher", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                loop.close()
                raise PublishError(f"this publisher's thread cannot be started: {error}") from None
            self._process, self._thread = os.getpid(), thread
            try:
                asyncio.run_coroutine_threadsafe(self._publisher.__aenter__(), loop).result()
            except BaseException:
                self._end(loop)
                self._process = None
                raise
            self._loop = loop
            atexit.register(self.close)  # a thread that is no daemon would keep the program from its end
            return loop

    def _end(self, loop: asyncio.AbstractEventLoop) -> None:
        atexit.unregister(self.close)
        loop.call_soon_threadsafe(loop.stop)
        if self._thread is not None:
            self._thread.join()
        loop.close()


def _turn(loop: asyncio.AbstractEventLoop) -> None:
    """Run a loop until it is stopped, then cancel its remaining tasks, such as those of an interrupted publish."""
    is_stopped = False
    while not is_stopped:
        with suppress(SystemExit, KeyboardInterrupt):  # of a listener: it is raised where the publish was called
            loop.run_forever()
            is_stopped = True
    if tasks := asyncio.all_tasks(loop):
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
