"""`holdfast check`: what would run, without connecting."""

import asyncio
import sys

from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from ..broker import ManagementUnavailable, Topology, dead_letter_queue, ladder
from ..config import LogSettings, Settings, origins, unknown_variables
from ..consumer import HandlerSpec, Worker
from ..events import ConfigurationError, TopologyDrift, TopologyMissing
from ..idempotency import open_claims
from ..telemetry import configure_logging, redact
from .load import load_worker


def check_worker(target: str, *, connect: bool = False, every: bool = False) -> None:
    """Print handlers, topology and the settings that are not left at their defaults, or `every` one.

    Raises `ConfigurationError` for what cannot work; with `connect` also `BrokerUnavailable`, `StoreUnavailable` and
    `TopologyError`."""
    worker = load_worker(target)
    settings = worker.settings
    if not (worker.handlers or worker.parts):
        raise ConfigurationError(f"{target} has no handlers; register one with @worker.handler(SomeEvent)")
    worker.selected()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    console.print(f"worker {worker.name}: {len(worker.handlers)} handler(s)\n", markup=False)
    if worker.handlers:
        console.print(_handlers(worker))
    for part in worker.parts:
        console.print(f"projection {part.title}", markup=False)
    console.print()
    for line in _settings(settings, every=every):
        console.print(line, markup=False, soft_wrap=True)
    for line in _topology(worker, worker.topology()):
        console.print(line, markup=False, soft_wrap=True)
    for line in unknown_variables():
        print(f"holdfast: warning: {line}", file=sys.stderr)
    if connect:
        configure_logging(LogSettings(level="CRITICAL"))  # libraries have words of their own for what is raised
        for line in asyncio.run(_reached(worker)):
            console.print(line, markup=False, soft_wrap=True)
    console.print("\nok")


def _settings(settings: Settings, *, every: bool) -> list[str]:
    came_from = origins(settings)
    values = {f"HOLDFAST_{group}__{name}".upper(): value for group, of in settings for name, value in of}
    shown = [name for name in values if every or came_from[name] != "default"]
    left = len(values) - len(shown)
    lines = [f"{name} = {_shown(values[name])}  ({came_from[name]})" for name in shown]
    return lines + ([f"{left} other settings have their defaults (--all prints them)"] if left else [])


async def _reached(worker: Worker) -> list[str]:
    """What answered. Raises what would keep the worker from starting."""
    settings, lines = worker.settings, []
    if not settings.broker.url.get_secret_value().startswith("memory:"):
        from ..broker.amqp import compare_topology, verify_bindings

        seen = await compare_topology(settings.broker, worker.topology())
        drift = [difference.message for difference in seen.differences if difference.kind == "differs"]
        missing = [difference.message for difference in seen.differences if difference.kind == "missing"]
        if drift and settings.broker.topology == "declare":
            raise TopologyDrift("\n".join(drift))
        if missing and settings.broker.topology == "verify":
            raise TopologyMissing("\n".join(missing))
        if settings.broker.topology == "verify":
            try:
                await verify_bindings(settings.broker, worker.topology())
            except ManagementUnavailable as error:
                lines.append(f"\nbindings are not verified: {error}")
        lines.append(f"\nbroker reached: {seen.product} {seen.version}, {len(missing)} exchanges and queues to declare")
    if not settings.claims_url.startswith("memory:"):
        opened = open_claims(settings, lambda fact: None)
        try:
            findings = await opened.findings()
        finally:
            await opened.store.close()
        lines += ["claim store reached", *(f"  {finding.text}" for finding in findings)]
    return lines


def _handlers(worker: Worker) -> Table:
    table = Table("handler", "events", "queue", "runs", "retry", "timeout", "concurrency")
    for spec in worker.handlers:
        most = worker.settings.worker.concurrency
        table.add_row(
            spec.name,
            ", ".join(spec.events),
            spec.queue,
            "on the loop" if spec.is_async else "in a thread",
            _retry(spec),
            f"{spec.timeout:g} s",
            str(min(spec.concurrency or most, most)),
        )
    return table


def _retry(spec: HandlerSpec) -> str:
    policy = spec.retry
    waits = [policy.delay(attempt, 1.0) for attempt in range(1, min(policy.attempts, 5))]
    shown = ", ".join(f"{wait:g}" for wait in waits) + (", ..." if policy.attempts > 5 else "")
    parts = [f"{policy.attempts} attempts" + (f", up to {shown} s apart" if waits else "")]
    if policy.immediate:
        parts.append(f"each run again {policy.immediate} time(s) in place")
    if policy.give_up_on:
        parts.append(f"not after {', '.join(kind.__name__ for kind in policy.give_up_on)}")
    if policy.max_age is not None:
        parts.append(f"not when {policy.max_age:g} s old")
    return "; ".join(parts)


def _topology(worker: Worker, topology: Topology) -> list[str]:
    """The handlers' queues one by one, the delay ladder as a whole."""
    broker = worker.settings.broker
    lines = [f"\ntopology ({broker.topology}): exchange {broker.exchange}"]
    for spec in worker.handlers:
        lines.append(f"  queue {spec.queue} ({_origin(spec, broker.queue_type)}")
        lines.append(f"  queue {dead_letter_queue(spec.queue)} for its dead letters")
    levels = sum(1 for queue in topology.queues if queue.name.startswith(ladder.LEVELS))
    lines.append(f"  delay ladder of {levels} levels, for delays up to {broker.max_delay:g} s")
    counts = len(topology.exchanges), len(topology.queues), len(topology.bindings)
    return [*lines, "  in all {} exchanges, {} queues, {} bindings".format(*counts)]


def _origin(spec: HandlerSpec, kind: str) -> str:
    if spec.is_existing:
        return "of others, as it is)"
    given = "" if spec.exchange is None else f" to {getattr(spec.exchange, 'name', spec.exchange)}"
    return f"{kind}), bound{given} for {', '.join(spec.events)}"


def _shown(value: object) -> str:
    if not isinstance(value, SecretStr):
        return str(value)
    secret = (
        value.get_secret_value()
    )  # of a URL the host and the user's name are worth seeing; of a password nothing is
    return redact(secret) if "://" in secret else "***"
