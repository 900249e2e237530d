"""How the bindings of a broker differ from a topology. AMQP does not tell; the management API does."""

from collections.abc import Iterable, Mapping, Set
from typing import Any

from ..broker import Binding, Difference, Topology


def binding_differences(
    topology: Topology, bindings: Iterable[Mapping[str, Any]], missing: Set[str] = frozenset()
) -> list[Difference]:
    """Compare bindings: those that are missing, and those of our queues that are surplus.

    Bindings that lead to or from a `missing` exchange or queue are left out: that has to be declared first."""
    there = {_binding(row) for row in bindings if row.get("source")}
    ours = set(topology.bindings)
    queues = {queue.name for queue in topology.queues}
    sources = {binding.source for binding in ours}
    absent = [b for b in topology.bindings if b not in there and not _ends(b) & missing]
    surplus = [b for b in there - ours if b.destination in queues and not b.to_exchange and b.source in sources]
    return [
        *(Difference("unbound", described(b), f"{described(b)} is missing") for b in absent),
        *(Difference("surplus", described(b), f"{described(b)} is not ours") for b in sorted(surplus, key=described)),
    ]


def described(binding: Binding) -> str:
    """Return a binding in words."""
    kind = "exchange" if binding.to_exchange else "queue"
    taken = ", ".join(f"{name}: {value}" for name, value in binding.headers) or binding.key
    return f"binding of {kind} {binding.destination} to {binding.source} for {taken}"


def _ends(binding: Binding) -> set[str]:
    return {f"exchange {binding.source}", f"{'exchange' if binding.to_exchange else 'queue'} {binding.destination}"}


def _binding(row: Mapping[str, Any]) -> Binding:
    to_exchange = row.get("destination_type") == "exchange"
    headers = tuple((name, str(value)) for name, value in sorted((row.get("arguments") or {}).items()))
    return Binding(str(row["source"]), str(row["destination"]), str(row["routing_key"]), to_exchange, headers)
