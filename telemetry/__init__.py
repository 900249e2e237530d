"""Facts and their listeners (floor 1): the log, the context of the event being handled, the watchdog."""

from .binding import event_context
from .facts import (
    Attached,
    Connected,
    CopyHeld,
    Detached,
    Disconnected,
    Draining,
    Emit,
    Fact,
    HandlerAbandoned,
    LoopBlocked,
    PipelineFailed,
    Role,
    Settled,
    SettledAs,
    SettlementStale,
    Started,
    Stopped,
)
from .listeners import fan_out
from .log import FactLog, configure_logging
from .redact import redact
from .watchdog import Watchdog

__all__ = [
    "Attached",
    "Connected",
    "CopyHeld",
    "Detached",
    "Disconnected",
    "Draining",
    "Emit",
    "Fact",
    "FactLog",
    "HandlerAbandoned",
    "LoopBlocked",
    "PipelineFailed",
    "Role",
    "Settled",
    "SettledAs",
    "SettlementStale",
    "Started",
    "Stopped",
    "Watchdog",
    "configure_logging",
    "event_context",
    "fan_out",
    "redact",
]
