"""What was seen of a broker: who it is, and where it is not as a topology says."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["missing", "differs", "unbound", "surplus", "unread"]


@dataclass(frozen=True, slots=True)
class Difference:
    """`thing` is not there, has other arguments, is bound too little or too much, or may not be looked at."""

    kind: Kind
    thing: str
    told: str


@dataclass(frozen=True, slots=True)
class Seen:
    """A broker's product and version, and how it differs from a topology (bindings aside: AMQP does not tell)."""

    product: str
    version: str
    differences: tuple[Difference, ...] = ()
