"""Projections: read models that are made from the events of a journal, in order."""

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from ..broker import Clock
from ..config import Settings
from ..events import ConfigurationError, Event
from ..telemetry import Emit
from .recorded import Reading

if TYPE_CHECKING:
    from ..sql import Database
    from .projector import Projector

F = TypeVar("F", bound=Callable[..., Any])
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}")


@dataclass(frozen=True, slots=True)
class _Taking:
    """A function of a projection, with the events that it takes."""

    function: Callable[..., Any]
    events: tuple[type[Event], ...]


class Projection:
    """A read model: functions that write it, one for each event, in the transaction that moves its position.

    A `version` is a read model of its own, made from the first event on. The functions have no way to publish: making a
    read model anew repeats no effect. `worker.include(projection, within=database)` runs it.

    Args:
        name: Its name: 1 to 100 letters, digits, `_`, `.` and `-`.
        version: A whole number from 1.

    Raises:
        ConfigurationError: The name or the version is none.
    """

    def __init__(self, name: str, *, version: int = 1) -> None:
        if not _NAME.fullmatch(name):
            raise ConfigurationError(f"Projection({name!r}): a name holds letters, digits and _.- alone, at most 100")
        if version < 1:
            raise ConfigurationError(f"Projection({name!r}): version={version}: give a whole number from 1")
        self.name, self.version = name, version
        self._taking: list[_Taking] = []
        self._by_class: dict[type[Event], Callable[..., Any]] = {}
        self.begin: Callable[..., Any] | None = None

    def __repr__(self) -> str:
        return f"Projection({self.name!r}, version={self.version})"

    @property
    def cursor(self) -> str:
        """The name under which its position is kept."""
        return f"projection:{self.name}:{self.version}"

    @property
    def title(self) -> str:
        """Its name and version, for people."""
        return f"{self.name} v{self.version}"

    def on(self, *events: type[Event]) -> Callable[[F], F]:
        """Have a function write what these events change: `(event, at, session)`, where `at` is a `Recorded` and
        `session` that of the database. It is `async def` where the database is asynchronous, else `def`.

        Args:
            events: The classes of the events.

        Returns:
            A decorator.

        Raises:
            ConfigurationError: One is no Event class, there is none, another function takes it, or the function takes
                other arguments.
        """
        if not events or not all(isinstance(event, type) and issubclass(event, Event) for event in events):
            raise ConfigurationError(f"projection {self.name!r}: write @{self.name}.on(SomeEvent), with Event classes")

        def register(function: F) -> F:
            self._must_take(function, "event", "at", "session")
            for event in events:
                if event in self._by_class:
                    raise ConfigurationError(f"projection {self.name!r}: two functions take {event.__name__}")
                self._by_class[event] = function
            self._taking.append(_Taking(function, events))
            return function

        return register

    def begins(self, function: F) -> F:
        """Have a function prepare the read model: `(session)`. It is called before the first event, in the same
        transaction, also when the read model is made anew: it makes or empties the tables.

        Args:
            function: The function.

        Returns:
            The function.

        Raises:
            ConfigurationError: The function takes other arguments.
        """
        self._must_take(function, "session")
        self.begin = function
        return function

    def _must_take(self, function: Callable[..., Any], *arguments: str) -> None:
        try:
            inspect.signature(function).bind(*arguments)
        except TypeError:
            name, called = getattr(function, "__name__", function), ", ".join(arguments)
            raise ConfigurationError(f"projection {self.name!r}: {name} must take ({called})") from None

    def function_for(self, event: Event) -> Callable[..., Any]:
        """Return the function that takes an event.

        Args:
            event: The event.
        """
        return self._by_class[type(event)]

    def reading(self) -> Reading:
        """Return how its events are read. Raises `ConfigurationError` where a known version cannot be upcast."""
        reading = Reading(self._by_class, f"projection {self.name!r}")
        reading.prepare()
        return reading

    def job(self, database: "Database[Any]", settings: Settings, emit: Emit, clock: Clock) -> "Projector":
        """Return it at work. `Worker.include` calls it.

        Args:
            database: The database that has the journal, and the read model.
            settings: The worker's settings.
            emit: What reports facts.
            clock: What tells the time.

        Raises:
            ConfigurationError: Events are not kept, or cannot be read.
        """
        if not settings.sql.keeps:
            raise ConfigurationError(f"projection {self.name!r}: there is no journal without HOLDFAST_SQL__KEEP")
        from .projector import Projector

        return Projector(self, database, settings, emit, clock)

    def check(self, database: "Database[Any]") -> None:
        """Check that the database can run the functions.

        Args:
            database: The database.

        Raises:
            ConfigurationError: It cannot, or there are none.
        """
        if not self._taking:
            raise ConfigurationError(f"projection {self.name!r} takes no event; register one with .on(SomeEvent)")
        wanted = "async def" if database.is_async else "def"
        begin = (self.begin,) if self.begin is not None else ()
        for function in (*begin, *(taking.function for taking in self._taking)):
            if inspect.iscoroutinefunction(function) != database.is_async:
                name = getattr(function, "__name__", function)
                raise ConfigurationError(f"projection {self.name!r}: {name} has to be {wanted} for its database")
