"""The connection to the broker as its facts tell of it: a tool says at once that it is down, and why."""

import asyncio

from ..events import BrokerUnavailable
from ..telemetry import Connected, Disconnected, Fact


class Outage:
    """Listens to facts. `begun` is set once a connection to each of the broker's `hosts` has failed."""

    def __init__(self, hosts: int = 1) -> None:
        self.begun = asyncio.Event()
        self._hosts = hosts
        self._errors: dict[str, str] = {}

    def __call__(self, fact: Fact) -> None:
        if isinstance(fact, Connected):
            self._errors.pop(fact.role, None)
        elif isinstance(fact, Disconnected):
            self._errors[fact.role] = f"the broker at {fact.url} is unavailable: {fact.error}"
            self._hosts -= 1
            if self._hosts <= 0:
                self.begun.set()

    def check(self) -> None:
        """Raise `BrokerUnavailable` while a connection is down."""
        for error in self._errors.values():
            raise BrokerUnavailable(error)
