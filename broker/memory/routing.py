"""Exchanges and bindings: from an exchange and a routing key to queues."""

from ..topic import matches
from ..topology import Binding, Exchange, ExchangeKind

_PREDECLARED: tuple[ExchangeKind, ...] = ("direct", "fanout", "headers", "topic")
_REMEMBERED = 10_000


class Routing:
    """Which queues a message goes to. Routes are remembered until something is declared or deleted."""

    def __init__(self) -> None:
        self.exchanges = {f"amq.{kind}": Exchange(f"amq.{kind}", kind) for kind in _PREDECLARED}
        self._bindings: dict[str, dict[Binding, None]] = {}
        self._routes: dict[tuple[str, str], tuple[str, ...]] = {}

    def declare(self, exchange: Exchange) -> None:
        self.exchanges[exchange.name] = exchange
        self._routes.clear()

    def bind(self, binding: Binding) -> None:
        self._bindings.setdefault(binding.source, {})[binding] = None
        self._routes.clear()

    def unbind_queue(self, queue: str) -> None:
        """Take away every binding of a queue."""
        for source, bindings in self._bindings.items():
            kept = {binding: None for binding in bindings if binding.to_exchange or binding.destination != queue}
            self._bindings[source] = kept
        self._routes.clear()

    def route(self, exchange: str, key: str) -> tuple[str, ...]:
        """Names of the queues, each once; none where the exchange does not exist."""
        queues = self._routes.get((exchange, key))
        if queues is None:
            if len(self._routes) >= _REMEMBERED:
                self._routes.clear()
            queues = self._routes[exchange, key] = self._walk(exchange, key)
        return queues

    def _walk(self, exchange: str, key: str) -> tuple[str, ...]:
        queues: dict[str, None] = {}
        seen: set[str] = set()
        ahead = [exchange]
        while ahead:
            name = ahead.pop()
            at = self.exchanges.get(name)
            if at is None or name in seen:
                continue
            seen.add(name)
            bindings = [binding for binding in self._bindings.get(name, ()) if _takes(at.kind, binding.key, key)]
            if not bindings and (alternate := at.arguments.get("alternate-exchange")) is not None:
                ahead.append(alternate)
            for binding in bindings:
                if binding.to_exchange:
                    ahead.append(binding.destination)
                else:
                    queues[binding.destination] = None
        return tuple(queues)


def _takes(kind: ExchangeKind, pattern: str, key: str) -> bool:
    match kind:
        case "topic":
            return matches(pattern, key)
        case "direct":
            return pattern == key
        case "fanout" | "headers":  # a headers binding without arguments, the only kind there is here, takes all
            return True
