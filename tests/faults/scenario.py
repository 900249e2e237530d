"""What a scenario is, and the list they are entered in."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from arena import Arena

Act = Callable[[Arena], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Scenario:
    """`short`: part of `make test`. `workers` is how many processes it begins with, the first armed with `point`."""

    name: str
    row: str
    act: Act
    short: bool = False
    point: str = ""
    cluster: bool = False


SCENARIOS: dict[str, Scenario] = {}


def scenario(row: str, *, short: bool = False, cluster: bool = False) -> Callable[[Act], Act]:
    def register(act: Act) -> Act:
        name = act.__name__.replace("_", " ")
        SCENARIOS[name] = Scenario(name, row, act, short, cluster=cluster)
        return act

    return register
