"""The outbox (floor 3.5): the relay that sends what was committed, and what it cleans up."""

from .leases import free as free
from .relay import Relay as Relay
from .running import relaying as relaying
