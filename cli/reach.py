"""Whether a command can reach the broker that the settings name."""

from ..config import BrokerSettings
from ..events import ConfigurationError


def check_reach(settings: BrokerSettings) -> None:
    """Raise `ConfigurationError` where the broker is in the memory of a process: that of no command."""
    if settings.url.get_secret_value().startswith("memory:"):
        raise ConfigurationError(
            "HOLDFAST_BROKER__URL=memory:// is a broker inside one process, which no command reaches; name a RabbitMQ"
        )
