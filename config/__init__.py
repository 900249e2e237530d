"""Settings (floor 0). The environment is read here and nowhere else."""

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
from .version import VERSION

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
