"""From what was seen to findings: pure, so that each one can be shown in a test."""

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, assert_never

from ...broker import DEAD_SUFFIX, DELIVERY_LIMIT, Comparison, Difference, Topology, ladder
from ...config import Settings
from ...consumer import HandlerSpec
from .catalogue import Finding

CONSUMER_TIMEOUT = 1800.0
"""Seconds: RabbitMQ's default, where no queue and no policy says otherwise. Of the node's own setting no API tells."""

CLOCK_TOLERANCE = 5.0
"""Seconds two clocks may be apart."""

_OLDEST = (3, 10)
_DROPS = ("message-ttl", "expires", "max-length", "max-length-bytes")


def of_settings(settings: Settings) -> list[Finding]:
    """What the settings alone tell."""
    findings = []
    if settings.claims_url.startswith("memory:"):
        findings.append(Finding("claims-in-memory", "HOLDFAST_IDEMPOTENCY__URL is memory://"))
    if settings.broker.url.get_secret_value().startswith("amqps:") and not settings.broker.verify:
        findings.append(Finding("tls-unverified", "HOLDFAST_BROKER__VERIFY is false"))
    if settings.claims_url.startswith("rediss") and not settings.idempotency.verify:
        findings.append(Finding("tls-unverified", "HOLDFAST_IDEMPOTENCY__VERIFY is false"))
    return findings


def of_version(seen: Comparison) -> list[Finding]:
    """Whether this RabbitMQ has what the topology needs."""
    numbers = tuple(int(number) for number in re.findall(r"\d+", seen.version)[:2])
    if "RabbitMQ" not in seen.product or not numbers or numbers >= _OLDEST:
        return []
    return [Finding("broker-old", f"{seen.product} {seen.version}")]


def of_difference(difference: Difference) -> Finding:
    """A difference between broker and topology, by what it hurts."""
    match difference.kind:
        case "missing" if ladder.LEVELS in difference.object:
            code = "delay-missing"
        case "missing" if difference.object.endswith(DEAD_SUFFIX):
            code = "dead-letters-missing"
        case "missing":
            code = "topology-missing"
        case "differs":
            code = "topology-differs"
        case "unbound":
            code = "binding-missing"
        case "surplus":
            code = "binding-surplus"
        case "unread":
            code = "arguments-unread"
        case _:
            assert_never(difference.kind)
    return Finding(code, difference.message)


def of_queues(topology: Topology, queues: Iterable[Mapping[str, Any]]) -> list[Finding]:
    """Policies and limits in effect for our queues, as the management API tells them."""
    ours = {queue.name: queue.arguments for queue in topology.queues}
    findings = []
    for queue in queues:
        name, policy = str(queue.get("name")), queue.get("effective_policy_definition") or {}
        if name not in ours:
            continue
        limit = policy.get("delivery-limit")
        if isinstance(limit, int) and 0 <= limit < min(int(ours[name].get("x-delivery-limit", DELIVERY_LIMIT)), 1000):
            findings.append(Finding("delivery-limit-low", f"queue {name}: {limit} by policy {queue.get('policy')!r}"))
        drops = [f"{key}={policy[key]}" for key in _DROPS if key in policy]
        if drops:
            findings.append(
                Finding("policy-drops", f"queue {name}: {', '.join(drops)} by policy {queue.get('policy')!r}")
            )
    return findings


def of_handlers(
    handlers: Iterable[HandlerSpec], settings: Settings, queues: Iterable[Mapping[str, Any]]
) -> list[Finding]:
    """How long each handler may hold a delivery, against the consumer timeout that is known for its queue."""
    known = {str(queue.get("name")): _timeout(queue) for queue in queues}
    findings = []
    for spec in handlers:
        held, (limit, where) = longest_hold(spec, settings), known.get(spec.queue, _DEFAULT)
        if held > limit:
            message = f"handler {spec.name}: up to {held:g} s, and the consumer timeout is {limit:g} s ({where})"
            findings.append(Finding("consumer-timeout", message))
    return findings


def longest_hold(spec: HandlerSpec, settings: Settings) -> float:
    """Seconds a delivery may be unacked: it waits for those that were fetched before it, then it is run."""
    most = settings.worker.concurrency
    slots = min(spec.concurrency or most, most)
    rounds = -(-(spec.prefetch or 2 * slots) // slots)
    return rounds * spec.timeout * (1 + spec.retry.immediate)


def of_clock(broker: datetime | None, here: datetime) -> list[Finding]:
    """The broker's clock tells whole seconds."""
    if broker is None or (apart := abs((broker - here).total_seconds())) <= CLOCK_TOLERANCE:
        return []
    return [Finding("clock-off", f"{apart:.0f} s apart")]


_DEFAULT = (CONSUMER_TIMEOUT, "RabbitMQ's default")


def _timeout(queue: Mapping[str, Any]) -> tuple[float, str]:
    arguments, policy = queue.get("arguments") or {}, queue.get("effective_policy_definition") or {}
    for values, name, where in (
        (arguments, "x-consumer-timeout", "the queue's argument"),
        (policy, "consumer-timeout", "by policy"),
    ):
        if isinstance(values.get(name), int):
            return values[name] / 1000, where
    return _DEFAULT
