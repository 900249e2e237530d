"""A visit to the servers: what each tells, and what cannot be read, as findings."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ...broker import Comparison, Management, ManagementUnavailable, Topology, binding_differences
from ...broker.amqp import compare_topology
from ...config import Settings
from ...consumer import HandlerSpec, short_windows, topology_of
from ...events import BrokerUnavailable, ConfigurationError
from ...idempotency import StoreUnavailable, open_claims
from .catalogue import Finding
from .judging import (
    of_arguments,
    of_clock,
    of_difference,
    of_handlers,
    of_queues,
    of_settings,
    of_unrouted,
    of_version,
)
from .ordering import of_ordered


@dataclass(frozen=True, slots=True)
class Visit:
    """The servers that were looked at, in words, and the findings."""

    looked_at: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def code(self) -> int:
        """The exit code: 1 where an error was found."""
        return int(any(finding.kind.severity == "error" for finding in self.findings))


async def examine_all(settings: Settings, handlers: tuple[HandlerSpec, ...]) -> Visit:
    """Look at broker, management API, claim store and handlers. Changes nothing."""
    looked_at, findings = list[str](), of_settings(settings)
    seen = [await _broker(settings, handlers), await _claims(settings), *await _databases(settings, handlers)]
    for words, more in seen:
        looked_at.append(words)
        findings += more
    findings += [Finding("window-short", line) for line in short_windows(handlers, settings.idempotency.ttl)]
    return Visit(tuple(looked_at), tuple(findings))


async def _databases(settings: Settings, handlers: tuple[HandlerSpec, ...]) -> list[tuple[str, list[Finding]]]:
    if settings.sql.url is None and all(spec.within is None for spec in handlers):
        return []
    from .databases import of_databases

    return await of_databases(settings, handlers)


async def _broker(settings: Settings, handlers: tuple[HandlerSpec, ...]) -> tuple[str, list[Finding]]:
    topology, mode = topology_of(handlers, settings.broker), settings.broker.topology
    try:
        seen = await compare_topology(settings.broker, topology)
    except BrokerUnavailable as error:
        return "broker: not reached", [Finding("broker-unreachable", str(error))]
    differences, asked = seen.differences, Management(settings.broker)
    try:
        queues = await asked.queues()
        managed = await _management(asked, topology, seen, queues)
    except ManagementUnavailable as error:
        queues, words, managed = [], "management API: not read", [Finding("management-unread", str(error))]
    else:
        words = f"management API: {asked.url}"
        if mode != "declare":  # AMQP names one argument of each queue that differs, harmless or not
            listed = {f"queue {row.get('name')}" for row in queues}
            differences = tuple(d for d in differences if d.kind != "differs" or d.object not in listed)
            managed += of_arguments(topology, queues)
    findings = of_version(seen) + of_unrouted(seen) + [of_difference(difference, mode) for difference in differences]
    findings += managed + of_handlers(handlers, settings, queues) + await of_ordered(settings, handlers)
    return f"broker: {seen.product} {seen.version}; {words}", findings


async def _management(
    asked: Management, topology: Topology, seen: Comparison, queues: list[dict[str, Any]]
) -> list[Finding]:
    bindings, alarms, clock = await asked.bindings(), await asked.alarms(), await asked.clock()
    missing = {difference.object for difference in seen.differences if difference.kind == "missing"}
    return [
        *(Finding("broker-alarm", alarm) for alarm in alarms),
        *map(of_difference, binding_differences(topology, bindings, missing)),
        *of_queues(topology, queues),
        *of_clock(clock, datetime.now(UTC)),
    ]


async def _claims(settings: Settings) -> tuple[str, list[Finding]]:
    if settings.claims_url.startswith("memory:"):
        return "claims: in memory", []
    try:
        opened = open_claims(settings, lambda fact: None)
        try:
            return "claims: Redis", [Finding(danger.code, danger.text) for danger in await opened.findings()]
        finally:
            await opened.store.close()
    except (StoreUnavailable, ConfigurationError) as error:
        return "claims: Redis not reached", [Finding("redis-unreachable", str(error))]
