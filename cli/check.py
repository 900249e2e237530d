"""`holdfast check`: what would run, without connecting."""

import sys

from rich.console import Console
from rich.table import Table

from ..config import environment, unknown_variables
from ..consumer import HandlerSpec, Worker
from ..events import ConfigurationError
from .load import load_worker


def check_worker(target: str) -> None:
    """Print settings, handlers and topology. Raises `ConfigurationError` for what cannot work."""
    worker = load_worker(target)
    settings = worker.settings
    if not worker.handlers:
        raise ConfigurationError(f"{target} has no handlers; register one with @worker.handler(SomeEvent)")
    topology = worker.topology()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    console.print(f"worker {worker.name}: {len(worker.handlers)} handler(s)\n", markup=False)
    console.print(_handlers(worker))
    console.print()
    for group, values in settings.model_dump().items():
        for name, value in values.items():
            console.print(f"HOLDFAST_{group}__{name}".upper() + f" = {value}", markup=False)
    queues = ", ".join(spec.queue for spec in worker.handlers)
    console.print(
        f"\ntopology: {len(topology.exchanges)} exchanges, {len(topology.queues)} queues, "
        f"{len(topology.bindings)} bindings; work queues: {queues}",
        markup=False,
    )
    for line in unknown_variables(environment()):
        print(f"holdfast: warning: {line}", file=sys.stderr)
    console.print("ok")


def _handlers(worker: Worker) -> Table:
    table = Table("handler", "events", "queue", "runs", "retry", "timeout", "concurrency")
    for spec in worker.handlers:
        table.add_row(
            spec.name,
            ", ".join(spec.events),
            spec.queue,
            "on the loop" if spec.is_async else "in a thread",
            _retry(spec),
            f"{spec.timeout:g} s",
            str(spec.concurrency or worker.settings.worker.concurrency),
        )
    return table


def _retry(spec: HandlerSpec) -> str:
    policy = spec.retry
    waits = [policy.delay(attempt, 1.0) for attempt in range(1, min(policy.attempts, 5))]
    shown = ", ".join(f"{wait:g}" for wait in waits) + (", ..." if policy.attempts > 5 else "")
    return f"{policy.attempts} attempts" + (f", up to {shown} s apart" if waits else "")
