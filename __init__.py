"""Holdfast: a RabbitMQ worker toolkit that holds fast to every message until its outcome is safe."""

from .config import Settings, load_settings
from .consumer import Backoff, Context, Handler, HandlerExit, HandlerTimeout, Health, Middleware, Retry, Worker, exponential, fixed, linear
from .events import (
    BrokerUnavailable,
    ConfigurationError,
    DecodeError,
    Envelope,
    Event,
    HandlerSignal,
    HoldfastError,
    Metadata,
    NotConnected,
    PublishError,
    PublishRefused,
    PublishTimeout,
    Reject,
    RetryLater,
    TooLarge,
    TopologyDrift,
    TopologyError,
    TopologyMissing,
    UnknownType,
    Unreadable,
    Unroutable,
    UnsupportedVersion,
)
from .publisher import Publisher

__all__ = [
    "Backoff", "BrokerUnavailable", "ConfigurationError", "Context", "DecodeError", "Envelope", "Event", "Handler",
    "HandlerExit", "HandlerSignal", "HandlerTimeout", "Health", "HoldfastError", "Metadata", "Middleware",
    "NotConnected", "PublishError", "PublishRefused", "PublishTimeout", "Publisher", "Reject", "Retry", "RetryLater",
    "Settings", "TooLarge", "TopologyDrift", "TopologyError", "TopologyMissing", "UnknownType", "Unreadable",
    "Unroutable", "UnsupportedVersion", "Worker", "exponential", "fixed", "linear", "load_settings",
]
