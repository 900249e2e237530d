"""Values that are made for every message."""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import TypeVar, dataclass_transform

    T = TypeVar("T")

    @dataclass_transform(frozen_default=True)
    def value(kind: type[T]) -> type[T]: ...

else:
    value = partial(dataclass, slots=True, unsafe_hash=True)

value.__doc__ = """A frozen dataclass to type checkers. At run time it is a plain one with slots: to make a frozen one
takes three times as long, and of some there are several for each message."""
