"""The life of a delivery (floor 4)."""

from .context import Context
from .dependencies import Dependencies
from .errors import HandlerExit, HandlerTimeout
from .handler import Handler, HandlerSpec, Middleware
from .registration import short_windows
from .retry import Backoff, Retry, exponential, fixed, linear
from .topology import topology_of
from .worker import Health, Worker

__all__ = [
    "Backoff",
    "Context",
    "Dependencies",
    "Handler",
    "HandlerExit",
    "HandlerSpec",
    "HandlerTimeout",
    "Health",
    "Middleware",
    "Retry",
    "Worker",
    "exponential",
    "fixed",
    "linear",
    "short_windows",
    "topology_of",
]
