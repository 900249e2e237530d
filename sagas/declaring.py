"""`Saga`: a process over many events, declared as a class."""

import inspect
import re
from collections.abc import Iterable, Mapping
from types import new_class
from typing import TYPE_CHECKING, Any, ClassVar, Self, dataclass_transform

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from ..consumer import HandlerSpec, Retry
from ..events import ConfigurationError, Event
from . import machine
from .errors import SagaError
from .graph import Graph, declarations, graph_of
from .machine import Moved
from .stages import COMPENSATING, STUCK, Declaration, Stage, Transition
from .step import Step

if TYPE_CHECKING:
    from ..events.versions import Cast
    from ..sql import Database

    @dataclass_transform(kw_only_default=True, field_specifiers=(Field, PrivateAttr))
    class Model:
        """A pydantic model, as type checkers see it: pydantic's plugin for mypy takes a stage for an untyped field."""

        def model_copy(self, *, deep: bool = ...) -> Self: ...
        def model_dump_json(self) -> str: ...
        def model_dump(self, *, mode: str = ...) -> dict[str, Any]: ...
        @classmethod
        def model_validate_json(cls, json_data: str) -> Self: ...
        @classmethod
        def __pydantic_init_subclass__(cls, **kwargs: Any) -> None: ...
else:
    Model = BaseModel

_WORD = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z0-9]+|[A-Z0-9]+")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}")


class Overdue(Event, type="saga.overdue", key="key"):
    """A saga is over the limit of a stage: `life` and `entered` say of which, and since which step. Each saga has a
    class of its own, so that the event goes to its queue alone."""

    key: str
    life: str
    entered: int
    stage: str


class Saga(Model):
    """A process over many events. Fields are its state, class attributes its stages and transitions.

    Class arguments: `key`, the field that is in each of its events and says which saga it is for; `name` (default: from
    the class name, `OrderFulfilment` becomes `order-fulfilment`); `version` of the state, from 1; `undo`, the events
    that take a step back, each with the event that answers it, or None; `publishes`, where given the only events that
    it may publish besides.

    A class without stages is an older version of a saga's state, for `@upcast`.

    Raises `ConfigurationError` at import, one line for each fault of the graph.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(
        ignored_types=(Stage, Declaration), extra="ignore", allow_inf_nan=False
    )

    compensating: ClassVar[Stage] = COMPENSATING
    stuck: ClassVar[Stage] = STUCK
    __graph__: ClassVar[Graph | None] = None
    __overdue__: ClassVar[type[Overdue]] = Overdue
    __publishes__: ClassVar[tuple[type[Event], ...] | None] = None
    __event_type__: ClassVar[str] = ""
    __event_version__: ClassVar[int] = 1
    __upcast__: ClassVar["Cast | None"] = None
    __downcast__: ClassVar["Cast | None"] = None

    def __init_subclass__(
        cls,
        *,
        key: str = "",
        name: str | None = None,
        version: int = 1,
        undo: Mapping[type[Event], type[Event] | None] | None = None,
        publishes: Iterable[type[Event]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init_subclass__(**kwargs)
        cls.__upcast__ = cls.__downcast__ = None

    @classmethod
    def __pydantic_init_subclass__(
        cls,
        *,
        key: str = "",
        name: str | None = None,
        version: int = 1,
        undo: Mapping[type[Event], type[Event] | None] | None = None,
        publishes: Iterable[type[Event]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        cls.__event_type__ = name or "-".join(word.lower() for word in _WORD.findall(cls.__name__))
        cls.__event_version__, cls.__graph__ = version, None
        if not _NAME.fullmatch(cls.__event_type__):
            raise ConfigurationError(
                f"saga {cls.__name__}: name={cls.__event_type__!r} is not 1 to 80 letters, digits, _-"
            )
        if not isinstance(version, int) or version < 1:
            raise ConfigurationError(f"saga {cls.__name__}: version={version!r} is not a whole number from 1")
        stages, transitions = declarations(cls)
        if not stages and not transitions:
            return
        if not key:
            raise ConfigurationError(f"saga {cls.__name__}: give key=, the field of its events that names the saga")
        cls.__graph__ = graph_of(cls, cls.__event_type__, key, stages, transitions, dict(undo or {}))
        cls.__publishes__ = None if publishes is None else (*publishes, *(undo or {}))
        names = {"__module__": cls.__module__, "__qualname__": f"{cls.__qualname__}Overdue"}
        of_this = f"saga.{cls.__event_type__}.overdue"
        cls.__overdue__ = new_class(
            f"{cls.__name__}Overdue", (Overdue,), {"type": of_this}, lambda own: own.update(names)
        )

    @classmethod
    def graph(cls) -> Graph:
        """Return the graph.

        Raises:
            ConfigurationError: The class has no stages.
        """
        if cls.__graph__ is None:
            raise ConfigurationError(f"saga {cls.__name__} has no stages: it is the state of an older version")
        return cls.__graph__

    @classmethod
    def handler_of(
        cls,
        worker: str,
        within: "Database[Any]",
        *,
        patience: float,
        queue: str | None,
        retry: Retry,
        concurrency: int | None,
    ) -> HandlerSpec:
        """Return the handler by which a worker runs the saga. `Worker.include` calls it.

        Args:
            worker: The worker's name.
            within: The database that keeps the sagas.
            patience: Seconds for which an event that comes too early waits.
            queue: The saga's queue; by default named after the worker and the saga.
            retry: What happens to an event whose step fails.
            concurrency: How many of its events are handled at once.

        Raises:
            ConfigurationError: The database cannot keep sagas, or cannot run a method.
        """
        from .including import included

        return included(cls, worker, within, patience=patience, queue=queue, retry=retry, concurrency=concurrency)

    @classmethod
    def take(cls, before: Moved[Self] | None, event: Event) -> Moved[Self]:
        """Return the saga after an event. Nothing else happens, so a test needs no harness. Raises what the method
        raises.

        Args:
            before: The saga before it, which stays as it is; None where it has not begun.
            event: The event.

        Raises:
            TooEarly: The saga takes the event at a later stage.
            SagaError: The method is `async`, or did what its declaration does not say.
            RuntimeError: A fault of Holdfast's own.
        """
        taking = machine.find(cls.graph(), before, event.__event_type__)
        if before is not None and isinstance(taking, str):
            return machine.come_late(before) if taking == "late" else machine.answered(cls.graph(), before)
        if isinstance(taking, str):
            raise RuntimeError("a saga that has not begun is not late")
        return cls._take(before, taking, event)

    @classmethod
    def overrun(cls, before: Moved[Self]) -> Moved[Self]:
        """Return the saga after the limit of its stage. Raises as `take` does.

        Args:
            before: The saga before it, which stays as it is.
        """
        taking = machine.expired(cls.graph(), before)
        return cls._take(before, taking, None) if isinstance(taking, Transition) else taking

    @classmethod
    def _take(cls, before: Moved[Self] | None, transition: Transition, event: Event | None) -> Moved[Self]:
        step = Step(undoable=cls.graph().undo)
        state = None if before is None else before.state.model_copy(deep=True)
        returned = machine.call(transition, state, event, step)
        if inspect.isawaitable(returned):
            if inspect.iscoroutine(returned):
                returned.close()
            raise SagaError(f"{cls.__name__}.{transition.name} is async: test it in a harness")
        return machine.after(cls.graph(), before, transition, cls.state_after(transition, state, returned), step)

    @classmethod
    def state_after(cls, transition: Transition, state: Self | None, returned: Any) -> Self:
        """Return the state that a method leaves.

        Args:
            transition: The transition whose method was called.
            state: The state that the method changed; None where it began the saga.
            returned: What the method returned.

        Raises:
            SagaError: It was to begin the saga, and returned another object.
        """
        if state is not None:
            return state
        if not isinstance(returned, cls):
            raise SagaError(f"{cls.__name__}.{transition.name} returned a {type(returned).__name__}, not the saga")
        return returned
