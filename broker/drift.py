"""How a broker differs from a topology."""

from dataclasses import dataclass
from typing import Literal

DifferenceKind = Literal["missing", "differs", "unbound", "surplus", "unread"]


@dataclass(frozen=True, slots=True)
class Difference:
    """An exchange, queue or binding that is missing, has other arguments, is bound too little or too much, or may not
    be inspected; with a message that says so."""

    kind: DifferenceKind
    object: str
    message: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """A broker's product and version, and how it differs from a topology (bindings aside: AMQP does not list them)."""

    product: str
    version: str
    differences: tuple[Difference, ...] = ()
