"""Events: frozen pydantic models that hold the data alone; everything else is the envelope's."""

import inspect
import re
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, cast, get_origin

from pydantic import BaseModel, ConfigDict, PydanticSchemaGenerationError, PydanticUserError, TypeAdapter

from .errors import ConfigurationError

if TYPE_CHECKING:
    from .versions import Cast

_NAME = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_WORD = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z0-9]+|[A-Z0-9]+")

Scope: TypeAlias = tuple[str, str]
"""The module of a class, and the class or function around it, if any."""

_known: dict[tuple[str, str], "weakref.ref[type[Event]]"] = {}


class Event(BaseModel):
    """A fact that happened, with its fields and nothing else.

    Class arguments: `type`, a dotted name (default: from the class name, `OrderCreated` becomes
    `order.created`); `version`, a whole number from 1; `key`, the field whose value identifies
    the aggregate. Building an event refuses unknown fields; reading one from the wire ignores
    them, so a producer may add a field without breaking anyone.

    Raises `ConfigurationError` at import for a wrong type, version or key, a type defined twice in a module, and a
    field that has no JSON form.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    __event_type__: ClassVar[str] = ""
    __event_version__: ClassVar[int] = 1
    __event_key__: ClassVar[str | None] = None
    __upcast__: ClassVar["Cast | None"] = None
    __downcast__: ClassVar["Cast | None"] = None

    def __init_subclass__(
        cls,
        *,
        type: str | None = None,  # noqa: A002 (the word of the trade)
        version: int = 1,
        key: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init_subclass__(**kwargs)
        cls.__event_type__ = type or ".".join(word.lower() for word in _WORD.findall(cls.__name__))
        cls.__event_version__ = version
        cls.__event_key__ = key
        cls.__upcast__ = cls.__downcast__ = None
        if not cls.model_config.get("arbitrary_types_allowed"):
            _check_annotations(cls)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**{k: v for k, v in kwargs.items() if k not in ("type", "version", "key")})
        where = f"class {cls.__name__}"
        if not _NAME.fullmatch(cls.__event_type__) or len(cls.__event_type__) > 150:
            raise ConfigurationError(
                f"{where}: type={cls.__event_type__!r} is not a dotted name such as 'order.created', at most 150 long"
            )
        if not isinstance(cls.__event_version__, int) or cls.__event_version__ < 1:
            raise ConfigurationError(f"{where}: version={cls.__event_version__!r} is not a whole number from 1")
        if cls.__event_key__ is not None and cls.__event_key__ not in cls.model_fields:
            raise ConfigurationError(f"{where}: key={cls.__event_key__!r} is not one of its fields")
        if cls.__pydantic_complete__:  # what refers to a class that is still to come is checked at start
            check_fields(cls)
        register(cls)


def check_fields(cls: type[Event]) -> None:
    """Check that every field can be written as JSON. Raises `ConfigurationError` naming the first that cannot."""
    try:
        cls.model_json_schema(mode="serialization")
    except PydanticUserError as error:
        raise ConfigurationError(f"class {cls.__name__}: {_culprit(cls)}{_first_sentence(error)}") from None


def _check_annotations(cls: type[Event]) -> None:
    """Refuse a type that pydantic does not know in one line: pydantic's own words fill a screen."""
    for name, annotation in inspect.get_annotations(cls).items():
        is_no_field = name.startswith("_") or ClassVar in (annotation, get_origin(annotation))
        if is_no_field or isinstance(annotation, str):  # text may name what is still to come
            continue
        try:
            TypeAdapter(annotation)
        except PydanticSchemaGenerationError as error:
            raise ConfigurationError(
                f"class {cls.__name__}: field {name!r} has no JSON form: {_first_sentence(error)}"
            ) from None
        except Exception:  # noqa: BLE001 (whatever else is wrong is pydantic's to tell)
            continue


def _culprit(cls: type[Event]) -> str:
    for name, field in cls.model_fields.items():
        try:
            TypeAdapter(cast("Any", field.annotation)).json_schema(mode="serialization")
        except PydanticUserError:
            return f"field {name!r} has no JSON form: "
    return ""


def _first_sentence(error: PydanticUserError) -> str:
    return str(error).partition("\n")[0].partition(". Set `arbitrary")[0]


def register(cls: type[Event]) -> None:
    """Remember a class; one defined again, as in a notebook, replaces itself.

    Raises `ConfigurationError` where the same module or function defines another class for the same type and version.
    """
    mine = scope(cls)
    for other in classes_of(cls.__event_type__):
        same = other.__event_version__ == cls.__event_version__ and scope(other) == mine
        if same and other.__qualname__ != cls.__qualname__:
            raise ConfigurationError(
                f"class {cls.__name__}: type {cls.__event_type__!r} version {cls.__event_version__} "
                f"is {other.__name__} already, in the same module; give one of them another type= or version="
            )
    _known[cls.__module__, cls.__qualname__] = weakref.ref(cls)


def classes_of(event_type: str) -> Iterator[type[Event]]:
    """Yield the living classes of a type, in the order in which they were defined."""
    for key, known in list(_known.items()):
        cls = known()
        if cls is None:
            del _known[key]
        elif cls.__event_type__ == event_type:
            yield cls


def scope(cls: type[Event]) -> Scope:
    """Return the module and function that define the class."""
    return cls.__module__, cls.__qualname__.rpartition(".")[0]


def vicinity(cls: type[Event]) -> Scope:
    """Return the same with the modules of one package as one: a version often has a file of its own."""
    module, around = scope(cls)
    return (module if around else module.rpartition(".")[0] or module), around
