"""A listener that knows which connections are up."""

from typing import get_args

from .facts import Connected, Counted, Disconnected, Fact, Role, Settled


class Links:
    """`down` names the connections that are not up, those that never were included."""

    ignores = frozenset((*get_args(Counted), Settled))

    def __init__(self) -> None:
        self._up: set[Role] = set()

    def __call__(self, fact: Fact) -> None:
        match fact:
            case Connected(role):
                self._up.add(role)
            case Disconnected(role):
                self._up.discard(role)
            case _:
                pass

    def down(self) -> tuple[str, ...]:
        roles: tuple[Role, ...] = ("consume", "publish")
        return tuple(f"connection to {role}" for role in roles if role not in self._up)
