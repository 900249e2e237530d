"""Holdfast: a RabbitMQ worker toolkit that holds fast to every message until its outcome is safe."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import Settings, load_settings
    from .consumer import (
        Backoff,
        Context,
        Existing,
        Handler,
        HandlerExit,
        HandlerTimeout,
        Health,
        Middleware,
        Ordered,
        Retry,
        Worker,
        exponential,
        fixed,
        linear,
    )
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
        NotPermitted,
        PublishError,
        PublishRefused,
        PublishTimeout,
        QueueInUse,
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
        downcast,
        upcast,
    )
    from .idempotency import Progress
    from .publisher import BlockingPublisher, Following, Publisher

__all__ = [
    "Backoff",
    "BlockingPublisher",
    "BrokerUnavailable",
    "ConfigurationError",
    "Context",
    "DecodeError",
    "Envelope",
    "Event",
    "Existing",
    "Following",
    "Handler",
    "HandlerExit",
    "HandlerSignal",
    "HandlerTimeout",
    "Health",
    "HoldfastError",
    "Metadata",
    "Middleware",
    "NotConnected",
    "NotPermitted",
    "Ordered",
    "Progress",
    "PublishError",
    "PublishRefused",
    "PublishTimeout",
    "Publisher",
    "QueueInUse",
    "Reject",
    "Retry",
    "RetryLater",
    "Settings",
    "TooLarge",
    "TopologyDrift",
    "TopologyError",
    "TopologyMissing",
    "UnknownType",
    "Unreadable",
    "Unroutable",
    "UnsupportedVersion",
    "Worker",
    "downcast",
    "exponential",
    "fixed",
    "linear",
    "load_settings",
    "upcast",
]


if not TYPE_CHECKING:  # a type checker would take every name for one of ours

    def __getattr__(name: str) -> Any:
        """Import a public name when it is first used: a module of event classes loads no broker, and the command
        line loads what its command needs."""
        if name in __all__:
            for folder in ("events", "config", "publisher", "consumer", "idempotency"):
                module = import_module(f"{__name__}.{folder}")
                if hasattr(module, name):
                    globals()[name] = value = getattr(module, name)
                    return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return __all__
