"""The values in effect for a queue: its own arguments and the policies on it, joined as RabbitMQ joins them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Effective:
    """A queue of the management API, and what is in effect for it. `key` is that of a policy, as `message-ttl`."""

    row: Mapping[str, Any]

    @property
    def arguments(self) -> Mapping[str, Any]:
        return self.row.get("arguments") or {}

    @property
    def policy(self) -> Mapping[str, Any]:
        return self.row.get("effective_policy_definition") or {}

    def limit(self, key: str) -> int | None:
        """Return a limit: the lower one, where arguments and policies both have it."""
        given = (self.arguments.get(f"x-{key}"), self.policy.get(key))
        return min((value for value in given if isinstance(value, int) and value >= 0), default=None)

    def mode(self, key: str) -> Any:
        """Return a mode: a policy has precedence for a quorum queue, the argument for a classic one."""
        argument, policy = self.arguments.get(f"x-{key}"), self.policy.get(key)
        first, second = (policy, argument) if self.arguments.get("x-queue-type") == "quorum" else (argument, policy)
        return first if first is not None else second

    def words(self, keys: Iterable[str]) -> str:
        """Return the values of these keys and their origin, in words."""
        values = {key: self.limit(key) for key in keys}
        shown = ", ".join(f"{key}={self.mode(key) if limit is None else limit}" for key, limit in values.items())
        return f"{shown} {self.origin(*keys)}"

    def origin(self, *keys: str) -> str:
        """Return where the values of these keys come from, in words."""
        policies = (("policy", self.row.get("policy")), ("operator policy", self.row.get("operator_policy")))
        named = [f"{kind} {name!r}" for kind, name in policies if name]
        return "by " + (" or ".join(named) if named and set(keys) & self.policy.keys() else "the queue's argument")
