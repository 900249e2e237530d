"""Settings (floor 0). The environment is read here and nowhere else."""

from .settings import (
    BrokerSettings,
    LogSettings,
    Settings,
    WorkerSettings,
    environment,
    known_variables,
    load_settings,
    unknown_variables,
)

__all__ = [
    "BrokerSettings", "LogSettings", "Settings", "WorkerSettings", "environment", "known_variables", "load_settings",
    "unknown_variables",
]
