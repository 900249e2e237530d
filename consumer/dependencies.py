"""What a run of a worker depends on: its time, its luck, its broker and its claims, each a value that is passed in."""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from ..broker import REAL, Broker, Clock, open_broker
from ..config import Settings
from ..idempotency import OpenClaims, WorkerClaims, open_claims
from ..telemetry import Emit, Spans
from .handler import Companion, Middleware
from .parts import Job

OpenBroker: TypeAlias = Callable[[Settings, Emit], Awaitable[Broker]]
OpenClaimsWith: TypeAlias = Callable[[Settings, Emit], OpenClaims]


@dataclass(frozen=True, slots=True)
class Tools:
    """The tools of one run, which its pipelines share."""

    broker: Broker
    claims: WorkerClaims
    clock: Clock
    luck: Callable[[], float]
    emit: Emit
    spans: Spans


@dataclass(frozen=True, slots=True)
class Dependencies:
    """The dependencies of one run; the real ones by default.

    `settings` replaces the worker's own. `cancel_grace`: the seconds a handler has to end after it was cancelled for
    its time; then it is abandoned. `middleware` runs inside the worker's own; `listeners` are added to the worker's.
    With `relays_at_once` the events that a handler's transaction commits are sent before its delivery ends.
    `companions` receives what runs next to handlers in their databases; without it each runs by itself. `jobs` receives
    what is included besides handlers, which then work when a transaction has committed.

    A run that `rehearses` leaves databases as they are: nothing is sent from them, no limit of a saga fires, and the
    transaction of each handler is rolled back at its end. What it published is then published as outside of one.
    """

    settings: Settings | None = None
    clock: Clock = REAL
    luck: Callable[[], float] = random.random
    open_broker: OpenBroker = open_broker
    open_claims: OpenClaimsWith = open_claims
    cancel_grace: float = 5.0
    middleware: tuple[Middleware, ...] = ()
    listeners: tuple[Emit, ...] = ()
    relays_at_once: bool = False
    companions: list[Companion] | None = None
    jobs: list[Job] | None = None
    rehearses: bool = False
