"""What a test may ask of a server."""

from dataclasses import dataclass
from typing import Protocol


class ServersUnavailable(Exception):
    """No server was found and none could be started; the text says what to install."""


@dataclass(frozen=True, slots=True)
class Given:
    """A server somebody else runs: known by its URL, and not ours to break."""

    url: str


class Node(Protocol):
    """A server of our own, which a test may break; its address stays the same through all of it."""

    @property
    def url(self) -> str: ...

    @property
    def running(self) -> bool:
        """Whether its process is there, be it paused."""

    def start(self) -> None:
        """Start it, with the data it had, and wait until it serves; nothing happens if it runs."""

    def stop(self) -> None:
        """Shut it down in order; the data stays."""

    def kill(self) -> None:
        """End it at once, as a power cut would; the data stays."""

    def pause(self) -> None:
        """Freeze it: connections stay open and nobody answers."""

    def resume(self) -> None:
        """Undo `pause`; nothing happens if it is not paused."""

    def ctl(self, *arguments: str) -> str:
        """Run its own tool (`rabbitmqctl`, `redis-cli`) and return what it printed."""


Server = Given | Node
"""A server to use: somebody else's or our own."""
