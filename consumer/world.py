"""What a worker runs in: its time, its luck, its broker and its claims, each a value that is passed in."""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from ..broker import REAL, Broker, Clock, open_broker
from ..config import Settings
from ..idempotency import OpenClaims, open_claims
from ..telemetry import Emit
from .handler import Middleware

OpenBroker: TypeAlias = Callable[[Settings, Emit], Awaitable[Broker]]
OpenClaimsWith: TypeAlias = Callable[[Settings, Emit], OpenClaims]


@dataclass(frozen=True, slots=True)
class World:
    """One run's surroundings; the real ones by default. `settings` stand in for the worker's own, `middleware` comes
    inside its own, next to the handler, and `listeners` are called as its own are."""

    settings: Settings | None = None
    clock: Clock = REAL
    luck: Callable[[], float] = random.random
    open_broker: OpenBroker = open_broker
    open_claims: OpenClaimsWith = open_claims
    middleware: tuple[Middleware, ...] = ()
    listeners: tuple[Emit, ...] = ()
