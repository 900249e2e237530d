"""Every row of the fault matrix, as a named scenario: what is broken, how, and when."""

import breaking_messages
import breaking_networks
import breaking_order
import breaking_servers
import breaking_workers
from scenario import SCENARIOS, Scenario

__all__ = [
    "SCENARIOS",
    "Scenario",
    "breaking_messages",
    "breaking_networks",
    "breaking_order",
    "breaking_servers",
    "breaking_workers",
]
