"""Settings (floor 0). The environment is read here and nowhere else."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .version import VERSION as VERSION

if TYPE_CHECKING:
    from .origins import origins as origins
    from .secrets import secret_of as secret_of
    from .settings import BrokerSettings as BrokerSettings
    from .settings import DashboardSettings as DashboardSettings
    from .settings import HttpSettings as HttpSettings
    from .settings import IdempotencySettings as IdempotencySettings
    from .settings import LogSettings as LogSettings
    from .settings import PublisherSettings as PublisherSettings
    from .settings import Settings as Settings
    from .settings import SqlSettings as SqlSettings
    from .settings import environment as environment
    from .settings import known_variables as known_variables
    from .settings import load_settings as load_settings
    from .settings import unknown_variables as unknown_variables
    from .tls import explain_tls as explain_tls
else:  # a type checker would take every name for one of ours
    _FILES = {"explain_tls": "tls", "origins": "origins", "secret_of": "secrets"}

    def __getattr__(name: str) -> Any:
        """Import a name when it is first used: `holdfast --version` needs no pydantic."""
        module = None if name.startswith("_") else import_module(f"{__name__}.{_FILES.get(name, 'settings')}")
        if not hasattr(module, name):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value = getattr(module, name)
        return value
