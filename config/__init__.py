"""Settings (floor 0). The environment is read here and nowhere else."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .version import VERSION

if TYPE_CHECKING:
    from .origins import origins
    from .secrets import secret_of
    from .settings import (
        BrokerSettings,
        DashboardSettings,
        DeadLetterSettings,
        HttpSettings,
        IdempotencySettings,
        LogSettings,
        PublisherSettings,
        Settings,
        WorkerSettings,
        environment,
        known_variables,
        load_settings,
        unknown_variables,
    )
    from .tls import explain_tls

__all__ = [
    "VERSION",
    "BrokerSettings",
    "DashboardSettings",
    "HttpSettings",
    "DeadLetterSettings",
    "IdempotencySettings",
    "LogSettings",
    "PublisherSettings",
    "Settings",
    "WorkerSettings",
    "environment",
    "explain_tls",
    "known_variables",
    "load_settings",
    "origins",
    "secret_of",
    "unknown_variables",
]


if not TYPE_CHECKING:  # a type checker would take every name for one of ours

    def __getattr__(name: str) -> Any:
        """Import a name when it is first used: `holdfast --version` needs no pydantic."""
        if name in __all__:
            for file in ("settings", "secrets", "tls", "origins"):
                if hasattr(module := import_module(f"{__name__}.{file}"), name):
                    globals()[name] = value = getattr(module, name)
                    return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
