"""What a scenario is, and the list they are entered in."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from arena import Arena

Act = Callable[[Arena], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is broken. The first worker is armed with `point`; `cluster`: three brokers instead of one (`make faults
    CLUSTER=1`); `pair`: two servers of Redis, watched by a Sentinel, instead of one."""

    name: str
    row: str
    act: Act
    point: str = ""
    cluster: bool = False
    pair: bool = False


SCENARIOS: dict[str, Scenario] = {}


def scenario(row: str, *, cluster: bool = False, pair: bool = False) -> Callable[[Act], Act]:
    def register(act: Act) -> Act:
        name = act.__name__.replace("_", " ")
        SCENARIOS[name] = Scenario(name, row, act, cluster=cluster, pair=pair)
        return act

    return register
