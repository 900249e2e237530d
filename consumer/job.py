"""One delivery being carried, and what it asks of the worker it is carried in."""

import asyncio
import contextvars
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from ..broker import Delivery
from ..events import History, Metadata
from ..idempotency import Claim
from ..telemetry import ClaimResult, CompletionResult
from .remembered import Identity


class Host(Protocol):
    """The worker, as a delivery under way sees it."""

    def free_slot(self, job: "Job") -> None:
        """Its handler has ended: another may begin."""
        ...

    def too_late(self, job: "Job") -> None:
        """Its handler is over its time."""
        ...

    async def be_alone(self, job: "Job") -> None:
        """Return when nothing else runs in this process."""
        ...

    async def until_followed(self) -> None:
        """Return when the queue is no longer consumed, should the claim store be away."""
        ...


@dataclass(slots=True, eq=False)
class Job:
    """It is carried by `task`, in `context`. A redelivery of the same message replaces `delivery` meanwhile.

    `stopped` says why the task was cancelled: its handler was over its time, or the worker stops. A handler that did
    not end even then is `left`: the delivery ends without it. Once it `is_settling`, a redelivery is on its own.
    """

    delivery: Delivery
    identity: Identity | None
    metadata: Metadata
    history: History
    context: contextvars.Context
    host: Host
    task: "asyncio.Task[None] | None" = None
    stopped: Literal["late", "stopping"] | None = None
    left: bool = False
    is_settling: bool = False
    slot_is_free: bool = False
    is_alone: bool = False
    began: float = 0.0
    ran_seconds: float = 0.0
    lingering: list[Any] = field(default_factory=list)
    claim: Claim | None = None
    claimed: ClaimResult | None = None
    claim_seconds: float = 0.0
    completion: CompletionResult | None = None

    def stop(self, why: Literal["late", "stopping"]) -> None:
        """Cancel what carries it."""
        assert self.task is not None
        self.stopped = why
        self.task.cancel()
