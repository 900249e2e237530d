"""A visit to the servers: what each tells, and what cannot be read, as findings."""

from dataclasses import dataclass
from datetime import UTC, datetime

from ...broker import Comparison, Management, ManagementUnavailable
from ...broker.amqp import compare_topology
from ...config import Settings
from ...consumer import HandlerSpec, short_windows, topology_of
from ...events import BrokerUnavailable, ConfigurationError
from ...idempotency import StoreUnavailable, open_claims
from ..topology import binding_differences
from .catalogue import Finding
from .judging import of_clock, of_difference, of_handlers, of_queues, of_settings, of_version


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
    for words, more in (await _broker(settings, handlers), await _claims(settings)):
        looked_at.append(words)
        findings += more
    findings += [Finding("window-short", line) for line in short_windows(handlers, settings.idempotency.ttl)]
    return Visit(tuple(looked_at), tuple(findings))


async def _broker(settings: Settings, handlers: tuple[HandlerSpec, ...]) -> tuple[str, list[Finding]]:
    topology = topology_of(handlers, settings.broker)
    try:
        seen = await compare_topology(settings.broker, topology)
    except BrokerUnavailable as error:
        return "broker: not reached", [Finding("broker-unreachable", str(error))]
    findings = of_version(seen) + [of_difference(difference) for difference in seen.differences]
    managed, more = await _management(settings, handlers, seen)
    return f"broker: {seen.product} {seen.version}; {managed}", findings + more


async def _management(
    settings: Settings, handlers: tuple[HandlerSpec, ...], seen: Comparison
) -> tuple[str, list[Finding]]:
    topology, asked = topology_of(handlers, settings.broker), Management(settings.broker)
    try:
        queues, bindings, alarms = await asked.queues(), await asked.bindings(), await asked.alarms()
        clock = await asked.clock()
    except ManagementUnavailable as error:
        return "management API: not read", [
            Finding("management-unread", str(error)),
            *of_handlers(handlers, settings, ()),
        ]
    missing = {difference.object for difference in seen.differences if difference.kind == "missing"}
    bound = binding_differences(topology, bindings, missing)
    return f"management API: {asked.url}", [
        *(Finding("broker-alarm", alarm) for alarm in alarms),
        *map(of_difference, bound),
        *of_queues(topology, queues),
        *of_handlers(handlers, settings, queues),
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
