"""The delay ladder: any delay, without a plugin, without head-of-line blocking, nothing lost on the way.

Levels of constant time-to-live `UNIT * 2^n`, each a headers exchange and a quorum queue of the same name that
dead-letters, at least once, to the exchange of the next lower level. A delay is a sum of levels. A message carries a
header for each level from the highest of them to the lowest, which says what happens there: `rest`, `pass`, or `last`
(rest, then leave for `OUT`). So 4 seconds are `holdfast-level-05: rest, -04: pass, -03: last`. After NServiceBus'
RabbitMQ transport ("Delayed delivery", Particular Software documentation), which has the levels in the routing key.

The target is `queue.<name>` for a copy that goes back to one queue, `event.<type>` for a delayed event that goes to
every queue bound for the type. Whatever finds no queue at the end of the ladder rests in `holdfast.unrouted`:
unroutable messages that stayed in a level would stop it for all (RabbitMQ's dead-letter worker has 32 in hand).

Earlier releases have the levels `holdfast.delay.NN` and a routing key with 28 binary digits before the target. What
they delay ends at `OUT` too; and a delayed event has such a key still, for their listeners (decision 0001).
"""

import math
from collections.abc import Iterable

from ..events import Headers
from ..events.headers import LEVEL
from .topology import Binding, Exchange, Queue, Topology, resting_queue

UNIT = 0.1
"""Seconds of the lowest level."""

BITS = 28
MOST = (1 << BITS) - 1
LEVELS = "holdfast.delays."
"""What the names of exchange and queue of each level begin with. Those of earlier releases have no `s`."""
OUT = "holdfast.delay.out"
UNROUTED = "holdfast.unrouted"
SIGNIFICANT_BITS, COARSE_BITS = 6, 3

_REST, _PASS, _LAST = "rest", "pass", "last"
_QUEUE, _EVENT = "queue.", "event."


def level_name(level: int) -> str:
    """Return the name of a level's exchange and queue: `holdfast.delays.00` rests for one unit."""
    return f"{LEVELS}{level:02d}"


def levels_for(max_delay: float) -> int:
    """Return how many levels delays of up to `max_delay` seconds need, rounded ones too."""
    return units(rounded(max_delay)).bit_length()


def units(delay: float) -> int:
    """Return the delay in whole units, at least 1: nothing that waits comes back at once."""
    return max(1, min(round(delay / UNIT), MOST))


def rounded(delay: float) -> float:
    """Return the delay with at most 6 significant binary digits: at most 6 hops, at most 1.6 % off."""
    whole = units(delay)
    step = 1 << max(0, whole.bit_length() - SIGNIFICANT_BITS)
    nearest = math.floor(whole / step + 0.5) * step
    return (nearest if nearest <= MOST else nearest - step) * UNIT


def coarse(delay: float) -> float:
    """Return the longest delay with at most 3 significant binary digits that is not above `delay`: at most 3 hops."""
    whole = min(math.floor(delay / UNIT + 1e-6), MOST)
    step = 1 << max(0, whole.bit_length() - COARSE_BITS)
    return delay if step == 1 else min(delay, whole // step * step * UNIT)


def address(delay: float, target: str) -> tuple[str, str, dict[str, str]]:
    """Return the exchange, the routing key and the headers that bring a message to `target` after `delay` seconds."""
    whole = units(delay)
    top, last = whole.bit_length() - 1, (whole & -whole).bit_length() - 1
    headers = {_header(level): _REST if whole >> level & 1 else _PASS for level in range(top, last, -1)}
    headers[_header(last)] = _LAST
    key = target if target.startswith(_QUEUE) else ".".join(f"{whole:0{BITS}b}") + "." + target
    return level_name(top), key, headers


def delay_of(headers: Headers) -> float:
    """Return the seconds that a message with these headers spends on the ladder."""
    rests = (name for name, word in headers.items() if name.startswith(LEVEL) and word in (_REST, _LAST))
    return sum(1 << int(name.removeprefix(LEVEL)) for name in rests) * UNIT


def to_queue(queue: str) -> str:
    """Return the target of a copy that goes back to one queue."""
    return _QUEUE + queue


def to_listeners(event_type: str) -> str:
    """Return the target of a delayed event: every queue bound for its type."""
    return _EVENT + event_type


def arrivals(queue: str, event_types: Iterable[str] = ()) -> Topology:
    """Return the bindings by which a queue receives its own copies and the delayed events of the types it handles."""
    keys = [to_queue(queue), "*." * BITS + to_queue(queue), *map(delayed, event_types)]
    return Topology(bindings=tuple(Binding(OUT, queue, key) for key in keys))


def delayed(event_type: str) -> str:
    """Return the binding key of delayed events of a type, or of a pattern of types."""
    return "*." * BITS + to_listeners(event_type)


def ladder(max_delay: float) -> Topology:
    """Return the shared levels, as far up as delays of `max_delay` seconds need."""
    exchanges = [Exchange(UNROUTED, "fanout"), Exchange(OUT, "topic", {"alternate-exchange": UNROUTED})]
    queues = [resting_queue(UNROUTED)]
    bindings = [Binding(UNROUTED, UNROUTED, "")]
    for level in range(levels_for(max_delay)):
        name, lower, header = level_name(level), level_name(level - 1) if level else OUT, _header(level)
        exchanges.append(Exchange(name, "headers"))
        queues.append(Queue(name, _rest(UNIT * (1 << level), then=lower)))
        bindings += (Binding(name, name, "", headers=((header, word),)) for word in (_REST, _LAST))
        if level:
            bindings.append(Binding(name, lower, "", to_exchange=True, headers=((header, _PASS),)))
            bindings.append(Binding(lower, OUT, "", to_exchange=True, headers=((header, _LAST),)))
    return Topology(tuple(exchanges), tuple(queues), tuple(bindings))


def _header(level: int) -> str:
    return f"{LEVEL}{level:02d}"


def _rest(seconds: float, *, then: str) -> dict[str, object]:
    return {
        "x-queue-type": "quorum",
        "x-message-ttl": round(seconds * 1000),
        "x-dead-letter-exchange": then,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
