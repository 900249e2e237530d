"""The delay ladder: any delay, without a plugin, without head-of-line blocking, nothing lost on the way.

Levels of constant time-to-live `UNIT * 2^n`, each a topic exchange and a quorum queue of the same name that
dead-letters, at least once, to the exchange of the next lower level. A routing key has a word for each level from the
highest at which the message rests to the lowest, then the target. The sign of a word says what happens at its level:
`+05` rest, then go on; `~04` pass; `=03` rest, then leave for `OUT`. So 4 seconds and the queue `shop.pack` are
`+05.~04.=03.@.shop.pack`. After NServiceBus' RabbitMQ transport ("Delayed delivery", Particular Software).

A target is `@.<name>` for a copy that goes back to one queue, `event.<type>` for a delayed event that goes to every
queue bound for the type. Whatever finds no queue at the end of the ladder rests in `holdfast.unrouted`: unroutable
messages that stayed in a level would stop it for all (RabbitMQ's dead-letter worker has 32 in hand).

Earlier releases used the levels `holdfast.delay.NN`, whose keys have 28 binary digits before the target. Both forms end
at `OUT`; a worker's queues are bound there for both (decision 0001).
"""

import math
from collections.abc import Iterable

from .topology import Binding, Exchange, Queue, Topology, resting_queue

UNIT = 0.1
"""Seconds of the lowest level."""

BITS = 28
MOST = (1 << BITS) - 1
LEVELS = "holdfast.delays."
"""What the names of exchange and queue of each level begin with."""
OUT = "holdfast.delay.out"
UNROUTED = "holdfast.unrouted"
SIGNIFICANT_BITS, COARSE_BITS = 6, 3

_REST, _PASS, _LEAVE, _QUEUE, _EVENT, _PAD = "+", "~", "=", "@", "event", "-"
_RESERVED = (_REST, _PASS, _LEAVE, _QUEUE)


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


def address(delay: float, target: str) -> tuple[str, str]:
    """Return the exchange and routing key that bring a message to `target` after `delay` seconds."""
    whole = units(delay)
    top, last = whole.bit_length() - 1, (whole & -whole).bit_length() - 1
    words = [f"{_REST if whole >> level & 1 else _PASS}{level:02d}" for level in range(top, last, -1)]
    words.append(f"{_LEAVE}{last:02d}")
    if not target.startswith(_QUEUE):  # as many words as earlier releases' bindings have at `OUT`
        words[:0] = [_PAD] * (BITS - len(words))
    return level_name(top), ".".join((*words, target))


def delay_of(key: str) -> float:
    """Return the seconds that a message with this routing key spends on the ladder."""
    words = key.split(f".{_QUEUE}.", maxsplit=1)[0].split(".")[:BITS]
    return sum(1 << int(word[1:]) for word in words if word[:1] in (_REST, _LEAVE)) * UNIT


def to_queue(queue: str) -> str:
    """Return the target of a copy that goes back to one queue."""
    return f"{_QUEUE}.{_escaped(queue)}"


def to_listeners(event_type: str) -> str:
    """Return the target of a delayed event: every queue bound for its type."""
    return f"{_EVENT}.{_escaped(event_type)}"


def arrivals(queue: str, event_types: Iterable[str] = ()) -> Topology:
    """Return the bindings with which a queue receives its own copies and the delayed events of the types it handles."""
    digits = "*." * BITS
    keys = (
        f"#.{to_queue(queue)}",
        f"{digits}queue.{queue}",
        *(f"{digits}{to_listeners(kind)}" for kind in event_types),
    )
    return Topology(bindings=tuple(Binding(OUT, queue, key) for key in keys))


def ladder(max_delay: float) -> Topology:
    """Return the shared levels, as far up as delays of `max_delay` seconds need."""
    exchanges = [Exchange(UNROUTED, "fanout"), Exchange(OUT, "topic", {"alternate-exchange": UNROUTED})]
    queues = [resting_queue(UNROUTED)]
    bindings = [Binding(UNROUTED, UNROUTED, "")]
    for level in range(levels_for(max_delay)):
        name, lower = level_name(level), level_name(level - 1) if level else OUT
        exchanges.append(Exchange(name))
        queues.append(Queue(name, _rest(UNIT * (1 << level), then=lower)))
        bindings += (Binding(name, name, f"#.{sign}{level:02d}.#") for sign in (_REST, _LEAVE))
        if level:
            bindings.append(Binding(name, lower, f"#.{_PASS}{level:02d}.#", to_exchange=True))
            bindings.append(Binding(lower, OUT, f"#.{_LEAVE}{level:02d}.#", to_exchange=True))
    return Topology(tuple(exchanges), tuple(queues), tuple(bindings))


def _escaped(name: str) -> str:
    """Return the name with no word in it that a binding of the ladder could take for one of its own."""
    if not any(sign in name for sign in _RESERVED):
        return name
    return ".".join(_QUEUE + word if word.startswith(_RESERVED) else word for word in name.split("."))


def _rest(seconds: float, *, then: str) -> dict[str, object]:
    return {
        "x-queue-type": "quorum",
        "x-message-ttl": round(seconds * 1000),
        "x-dead-letter-exchange": then,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
