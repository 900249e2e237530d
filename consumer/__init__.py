"""The life of a delivery (floor 4)."""

from .claiming import short_windows
from .context import Context
from .handler import Handler, HandlerSpec, Middleware
from .invoke import HandlerExit, HandlerTimeout
from .retry import Backoff, Retry, exponential, fixed, linear
from .topology import topology_of
from .worker import Health, Worker
from .world import World

__all__ = [
    "Backoff",
    "Context",
    "Handler",
    "HandlerExit",
    "HandlerSpec",
    "HandlerTimeout",
    "Health",
    "Middleware",
    "Retry",
    "Worker",
    "World",
    "exponential",
    "fixed",
    "linear",
    "short_windows",
    "topology_of",
]
