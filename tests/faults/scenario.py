"""What a scenario is, and the list they are entered in."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from arena import Arena

Act = Callable[[Arena], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is broken. The first worker is armed with `point`; `cluster`: three brokers instead of one (`make faults
    CLUSTER=1`); `pair`: two servers of Redis, watched by a Sentinel, instead of one; `partitions`: of the ordered
    handler."""

    name: str
    row: str
    act: Act
    point: str = ""
    cluster: bool = False
    pair: bool = False
    partitions: int = 1


SCENARIOS: dict[str, Scenario] = {}


def scenario(
    row: str, *, cluster: bool = False, pair: bool = False, partitions: tuple[int, ...] = (1,)
) -> Callable[[Act], Act]:
    """Enter an act in the list, once for each number of partitions."""

    def register(act: Act) -> Act:
        for number in partitions:
            name = act.__name__.replace("_", " ") + (", with partitions" if number > 1 else "")
            SCENARIOS[name] = Scenario(name, row, act, cluster=cluster, pair=pair, partitions=number)
        return act

    return register
