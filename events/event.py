"""Events: frozen pydantic models that hold the data alone; everything else is the envelope's."""

import inspect
import re
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, cast, get_origin

from pydantic import BaseModel, ConfigDict, PydanticSchemaGenerationError, PydanticUserError, TypeAdapter

from .errors import ConfigurationError
from .forms import fault_in_forms

if TYPE_CHECKING:
    from .versions import Cast

_NAME = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_VERSION = re.compile(r"_?[Vv]?\d+$")
_WORD = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z0-9]+|[A-Z0-9]+")

Scope: TypeAlias = tuple[str, str]
"""The module of a class, and the class or function around it, if any."""

_known: dict[tuple[str, str], "weakref.ref[type[Event]]"] = {}


class Event(BaseModel):
    """A fact that happened, with its fields and nothing else.

    Class arguments, as in `class OrderCreated(Event, type="order.created", version=2, key="order_id")`:

    - `type`: a dotted name; by default made of the class name, `OrderCreated` becomes `order.created`.
    - `version`: a whole number from 1, which is the default.
    - `key`: the field whose value identifies the aggregate; by default none.

    Building an event refuses unknown fields. Reading one from the wire ignores them, so a producer may add a field
    without breaking anyone.

    A subclass has the key of its class. One with a `version=` and no `type=` is another version of its class, where
    that was given its type, or the name says so (`OrderV2` of `Order`). `Wrapped[int]` is the same event as `Wrapped`.

    Raises:
        ConfigurationError: At import: a wrong type, version or key, a type defined twice in a module, a field that has
            no JSON form, or one that would be read as another value than was written.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    __event_type__: ClassVar[str] = ""
    __event_version__: ClassVar[int] = 1
    __event_key__: ClassVar[str | None] = None
    __type_is_given__: ClassVar[bool] = False
    __upcast__: ClassVar["Cast | None"] = None
    __downcast__: ClassVar["Cast | None"] = None

    def __init_subclass__(
        cls,
        *,
        type: str | None = None,  # noqa: A002 (the word of the trade)
        version: int | None = None,
        key: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init_subclass__(**kwargs)
        cls.__upcast__ = cls.__downcast__ = None
        if not cls.model_config.get("arbitrary_types_allowed"):
            _check_annotations(cls)

    @classmethod
    def __pydantic_init_subclass__(
        cls,
        *,
        type: str | None = None,  # noqa: A002
        version: int | None = None,
        key: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        parent = next(base for base in cls.__mro__[1:] if issubclass(base, Event))
        cls.__type_is_given__ = bool(type) or _is_version_of(parent, cls, version)
        cls.__event_type__ = type or (parent.__event_type__ if cls.__type_is_given__ else _type_from_name(cls))
        cls.__event_version__ = _version_of(cls, version)
        cls.__event_key__ = key or parent.__event_key__
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


def _is_version_of(parent: type[Event], cls: type[Event], version: int | None) -> bool:
    """Return whether a class without a type of its own is its parent, in another version or with its parameters."""
    if is_parametrised(cls):
        return True
    if version is None or parent is Event:
        return False
    named_alike = re.fullmatch(rf"{_VERSION.sub('', parent.__name__)}{_VERSION.pattern}", cls.__name__)
    if not parent.__type_is_given__ and named_alike is None:
        raise ConfigurationError(
            f"class {cls.__name__}: version={version} of which type? Give type={parent.__event_type__!r} for a version "
            f"of {parent.__name__}, or a type of its own"
        )
    return True


def _version_of(cls: type[Event], version: int | None) -> int:
    if version is not None:
        return version
    return cls.__mro__[1].__event_version__ if is_parametrised(cls) else 1  # type: ignore[attr-defined]


def _type_from_name(cls: type[Event]) -> str:
    """Return `order.created` for `OrderCreated`. Raises `ConfigurationError` for a name with letters outside ASCII."""
    if not cls.__name__.isascii():
        raise ConfigurationError(
            f"class {cls.__name__}: its name has letters that a type cannot have; give type= with a to z, 0 to 9, _.-"
        )
    return ".".join(word.lower() for word in _WORD.findall(cls.__name__))


def check_fields(cls: type[Event]) -> None:
    """Check that every field can be written as JSON, and is read as the value that was written.

    Raises `ConfigurationError` naming the first field that cannot.
    """
    try:
        cls.model_json_schema(mode="serialization")
    except PydanticUserError as error:
        raise ConfigurationError(f"class {cls.__name__}: {_culprit(cls)}{_first_sentence(error)}") from None
    if fault := fault_in_forms(cls):
        raise ConfigurationError(f"class {cls.__name__}: {fault}")


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
        if same and _definition(other).__qualname__ != _definition(cls).__qualname__:
            raise ConfigurationError(
                f"class {cls.__name__}: type {cls.__event_type__!r} version {cls.__event_version__} "
                f"is {other.__name__} already, in the same module; give one of them another type= or version="
            )
    _known[mine[0], f"{mine[1]}.{cls.__name__}"] = weakref.ref(cls)


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
    return cls.__module__, _definition(cls).__qualname__.rpartition(".")[0]


def is_parametrised(cls: type[Event]) -> bool:
    """Return whether a class is a generic one with its parameters, such as `Wrapped[int]`."""
    return cls.__pydantic_generic_metadata__["origin"] is not None


def _definition(cls: type[Event]) -> type[Event]:
    """Return the class that the user wrote: `Wrapped` for `Wrapped[int]`."""
    origin: type[Event] | None = cls.__pydantic_generic_metadata__["origin"]  # type: ignore[assignment]
    return cls if origin is None else origin


def vicinity(cls: type[Event]) -> Scope:
    """Return the same with the modules of one package as one: a version often has a file of its own."""
    module, around = scope(cls)
    return (module if around else module.rpartition(".")[0] or module), around
