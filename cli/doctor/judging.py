"""From what was seen to findings: pure, so that each one can be shown in a test."""

import math
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, assert_never

from ...broker import DEAD_SUFFIX, Comparison, Difference, Mode, Queue, Topology, ladder
from ...config import Settings
from ...consumer import HandlerSpec
from .catalogue import Finding
from .effective import Effective

CONSUMER_TIMEOUT = 1800.0
"""Seconds: RabbitMQ's default, where no queue and no policy says otherwise. Of the node's own setting no API tells."""

CLOCK_TOLERANCE = 5.0
"""Seconds two clocks may be apart."""

_OLDEST = (3, 10)
_LIMITS = ("message-ttl", "expires", "max-length", "max-length-bytes")


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


def of_unrouted(seen: Comparison) -> list[Finding]:
    """What left the delay ladder, and no queue took."""
    return [Finding("unrouted", f"{seen.unrouted} message(s) in {ladder.UNROUTED}")] if seen.unrouted else []


def of_difference(difference: Difference, mode: Mode = "declare") -> Finding:
    """A difference between broker and topology, by what it hurts. Arguments are compared at the start in the mode
    `declare` alone."""
    match difference.kind:
        case "missing" if ladder.LEVELS in difference.object:
            code = "delay-missing"
        case "missing" if difference.object.endswith(DEAD_SUFFIX):
            code = "dead-letters-missing"
        case "missing":
            code = "topology-missing"
        case "differs" if mode != "declare":
            code = "arguments-differ"
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
    """Return findings about the limits and modes in effect for our queues."""
    ours, findings = {queue.name: queue for queue in topology.queues}, list[Finding]()
    for row in queues:
        if (queue := ours.get(str(row.get("name")))) is None:
            continue
        seen = Effective(row)
        limit, declared = seen.limit("delivery-limit"), queue.arguments.get("x-delivery-limit")
        if limit is not None and declared is not None and limit < min(declared, 1000):
            message = f"queue {queue.name}: {seen.words(['delivery-limit'])}"
            findings.append(Finding("delivery-limit-low", message))
        drops, early = _losses(queue, seen)
        if drops:
            findings.append(Finding("policy-drops", f"queue {queue.name}: {seen.words(drops)}"))
        if early:
            findings.append(Finding("delay-short", f"queue {queue.name}: {seen.words(early)}"))
    return findings


def _losses(queue: Queue, seen: Effective) -> tuple[list[str], list[str]]:
    """Return the keys by which a queue drops or expires more than Holdfast declares, and those by which a delay level
    hands on too early. A policy may change how long a stream keeps events."""
    if queue.arguments.get("x-queue-type") == "stream":
        return [], []
    rejects = seen.mode("overflow") == "reject-publish"
    lower = [
        key
        for key in _LIMITS
        if (limit := seen.limit(key)) is not None and limit < queue.arguments.get(f"x-{key}", math.inf)
    ]
    is_level = queue.name.startswith(ladder.LEVELS)
    early = [key for key in lower if key == "message-ttl" and is_level]  # what leaves a level too soon is not lost
    drops = [key for key in lower if key not in early and not (rejects and key.startswith("max-length"))]
    if queue.arguments.get("x-dead-letter-strategy") == "at-least-once":
        safe = {"overflow": "reject-publish", "dead-letter-strategy": "at-least-once"}
        drops += [key for key, mode in safe.items() if key in seen.policy and seen.mode(key) != mode]
    return drops, early


def of_arguments(topology: Topology, queues: Iterable[Mapping[str, Any]]) -> list[Finding]:
    """Return a finding for each queue that others declared with other values than ours. Arguments besides ours are no
    finding: their effect is judged by `of_queues`."""
    ours, findings = {queue.name: queue.arguments for queue in topology.queues}, list[Finding]()
    for row in queues:
        name, theirs = str(row.get("name")), row.get("arguments") or {}
        differing = [f"{key}={theirs.get(key)}, not {value}" for key, value in ours.get(name, {}).items()
                     if theirs.get(key) != value]  # fmt: skip
        if differing:
            findings.append(Finding("arguments-differ", f"queue {name}: {'; '.join(differing)}"))
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


def _timeout(row: Mapping[str, Any]) -> tuple[float, str]:
    seen = Effective(row)
    limit = seen.limit("consumer-timeout")
    return _DEFAULT if limit is None else (limit / 1000, seen.origin("consumer-timeout"))
