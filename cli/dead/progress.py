"""An operation while a command carries it out: its bar, and the signals that pause it."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ...dead_letters import DeadLetters, Operation
from ...dead_letters.view import counts_of
from ...telemetry import neutral
from ..signals import heed, heed_no_more


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
        text = f"{now.kind} {counts_of(now, ' · ')} {neutral(now.detail, 60)}"
        progress.update(task, completed=now.total - now.left - now.unconfirmed, description=text)

    with progress:
        yield tell


@contextmanager
def pausing(service: DeadLetters, operation: Operation) -> Iterator[None]:
    """Pause the operation on the first Ctrl-C or SIGTERM, when the letters in flight are done; the second one ends."""

    def pause(counts: bool) -> None:
        service.journal.ask(operation.id, "pause")
        heed_no_more()

    heed(pause)
    try:
        yield
    finally:
        heed_no_more()
