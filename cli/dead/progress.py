"""An operation while a command carries it out: its bar, and the signals that pause it."""

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ...dead_letters import DeadLetters, Operation
from ...telemetry import neutral
from ..signals import heeded


@contextmanager
def bar(service: DeadLetters, operation: Operation, *, hidden: bool) -> Iterator[Callable[[], None]]:
    """Show on a terminal how many letters have their outcome. Gives the function that updates the bar."""
    if hidden or not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    progress = Progress(*columns, console=Console(stderr=True, highlight=False), transient=True)
    task = progress.add_task(operation.kind, total=operation.total)

    def tell() -> None:
        now = service.journal.operation(operation.id)
        progress.update(task, completed=now.total - now.left - now.unconfirmed, description=_short(now))

    with progress:
        yield tell


def _short(operation: Operation) -> str:
    counts = " · ".join(f"{count} {state}" for state, count in operation.counts.items() if count and state != "waiting")
    return f"{operation.kind} {counts} {neutral(operation.detail, 60)}"


@contextmanager
def pausing(service: DeadLetters, operation: Operation) -> Iterator[None]:
    """Pause the operation on the first Ctrl-C or SIGTERM, when the letters in flight are done; the second one ends."""
    loop, signals = asyncio.get_running_loop(), heeded()

    def leave() -> None:
        for number in signals:
            loop.remove_signal_handler(number)

    def pause() -> None:
        service.journal.ask(operation.id, "pause")
        leave()

    for number in signals:
        loop.add_signal_handler(number, pause)
    try:
        yield
    finally:
        leave()
