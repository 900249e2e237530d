"""Parts of a worker that are no handlers: they run next to those, on a database."""

from typing import TYPE_CHECKING, Any, Protocol

from ..broker import Clock
from ..config import Settings
from ..telemetry import Emit

if TYPE_CHECKING:
    from ..sql import Database


class Job(Protocol):
    """A part at work."""

    async def run(self) -> None:
        """Work until this is cancelled."""

    async def drain(self) -> None:
        """Do all that there is to do."""

    def wake(self) -> None:
        """Look for work now."""

    def missing(self) -> str | None:
        """Return what keeps it from being up to date."""


class Part(Protocol):
    """A part of a worker, such as a projection."""

    @property
    def title(self) -> str:
        """Its name, for people."""

    def check(self, database: "Database[Any]") -> None:
        """Raise `ConfigurationError` where it cannot run on the database."""

    def job(self, database: "Database[Any]", settings: Settings, emit: Emit, clock: Clock) -> Job:
        """Return the job that does its work on the database. Raises `ConfigurationError`."""
