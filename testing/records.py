"""What a harness saw, as plain values."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..dead_letters import Letter
from ..events import Metadata


@dataclass(frozen=True, slots=True)
class Run:
    """A handler was called with `event`: an `Event`, a `dict` or `bytes`, whatever it takes."""

    event: Any
    metadata: Metadata
    handler: str
    queue: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Retried:
    """Attempt `attempt` failed with `error` and was followed by another after `delay` seconds."""

    event: Any
    metadata: Metadata
    handler: str
    queue: str
    attempt: int
    delay: float
    error: str


@dataclass(frozen=True, slots=True)
class Published:
    """An event was published, confirmed and routed; `delay` seconds before it is delivered, if it was delayed."""

    event: Any
    metadata: Metadata
    delay: float | None = None


@dataclass(frozen=True, slots=True)
class DeadLettered:
    """A message in a dead-letter queue. `event` is a `dict` where it is not what its class
    says, and None where it is no JSON object; `letter` tells everything."""

    event: Any
    handler: str
    queue: str
    reason: str
    attempt: int
    error_type: str
    error: str
    letter: Letter


def troubles(retries: Iterable[Retried], dead: Iterable[DeadLettered]) -> str:
    """What a test that failed may want to know of errors in handlers, a line each; the first twenty."""
    lines = [f"  {one.handler}, attempt {one.attempt}, retried: {one.error}" for one in retries]
    lines += [f"  {one.handler}: dead-lettered ({one.reason}): {one.error_type}: {one.error}" for one in dead]
    return "".join(f"\n{line[:300]}" for line in lines[:20])
