"""What was seen of a broker: who it is, and where it is not as a topology says."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["missing", "differs", "unbound", "surplus", "unread"]


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference between a broker and a topology: `object` (an exchange, queue or binding, in words) is not there,
    has other arguments, lacks a binding or has one too many, or may not be looked at."""

    kind: Kind
    object: str
    message: str


@dataclass(frozen=True, slots=True)
class Seen:
    """A broker's product and version, and how it differs from a topology (bindings aside: AMQP does not tell)."""

    product: str
    version: str
    differences: tuple[Difference, ...] = ()
