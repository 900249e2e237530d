"""Exchanges and bindings: from an exchange and a routing key to queues."""

from ...events import Headers
from ..topology import Binding, Exchange, ExchangeKind, matches

_PREDECLARED: tuple[ExchangeKind, ...] = ("direct", "fanout", "headers", "topic")
_REMEMBERED = 10_000


class Routing:
    """Which queues a message goes to.

    A route by key alone is remembered until something is declared or deleted.
    """

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

    def has(self, binding: Binding) -> bool:
        """Return whether it was bound."""
        return binding in self._bindings.get(binding.source, ())

    def unbind_queue(self, queue: str) -> None:
        """Take away every binding of a queue."""
        for source, bindings in self._bindings.items():
            kept = {binding: None for binding in bindings if binding.to_exchange or binding.destination != queue}
            self._bindings[source] = kept
        self._routes.clear()

    def route(self, exchange: str, key: str, headers: Headers) -> tuple[str, ...]:
        """Return the names of the queues, each once; none where the exchange does not exist."""
        known = self._routes.get((exchange, key))
        if known is not None:
            return known
        queues, by_key_alone = self._walk(exchange, key, headers)
        if by_key_alone:
            if len(self._routes) >= _REMEMBERED:
                self._routes.clear()
            self._routes[exchange, key] = queues
        return queues

    def _walk(self, exchange: str, key: str, headers: Headers) -> tuple[tuple[str, ...], bool]:
        """Return the queues and whether no headers exchange was met."""
        queues: dict[str, None] = {}
        seen: set[str] = set()
        ahead = [exchange]
        while ahead:
            name = ahead.pop()
            at = self.exchanges.get(name)
            if at is None or name in seen:
                continue
            seen.add(name)
            bindings = [binding for binding in self._bindings.get(name, ()) if _takes(at.kind, binding, key, headers)]
            if not bindings and (alternate := at.arguments.get("alternate-exchange")) is not None:
                ahead.append(alternate)
            for binding in bindings:
                if binding.to_exchange:
                    ahead.append(binding.destination)
                else:
                    queues[binding.destination] = None
        return tuple(queues), all(self.exchanges[name].kind != "headers" for name in seen)


def _takes(kind: ExchangeKind, binding: Binding, key: str, headers: Headers) -> bool:
    match kind:
        case "topic":
            return matches(binding.key, key)
        case "direct":
            return binding.key == key
        case "headers":
            return all(headers.get(name) == value for name, value in binding.headers)
        case "fanout":
            return True
