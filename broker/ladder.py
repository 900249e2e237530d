"""The delay ladder: any delay, without a plugin, without head-of-line blocking, nothing lost on the way.

Levels of constant time-to-live `UNIT * 2^n`, each a topic exchange and a quorum queue of the same name that
dead-letters, at least once, to the next lower level. A routing key carries the delay as 28 binary digits, highest
first, then the target: a message rests at each level whose digit is 1 and passes the others at once. After
NServiceBus' RabbitMQ transport ("Delayed delivery", Particular Software documentation).

The target is `queue.<name>` for a copy that goes back to one queue, `event.<type>` for a delayed event that goes to
every queue bound for the type. Whatever finds no queue at the end of the ladder rests in `holdfast.unrouted`:
unroutable messages that stayed in a level would stop it for all (RabbitMQ's dead-letter worker has 32 in hand).
"""

import math

from .topology import Binding, Exchange, Queue, Topology, resting_queue

UNIT = 0.1
"""Seconds of the lowest level."""

BITS = 28
MOST = (1 << BITS) - 1
OUT = "holdfast.delay.out"
UNROUTED = "holdfast.unrouted"
SIGNIFICANT_BITS = 6


def level_name(level: int) -> str:
    """Exchange and queue of a level: `holdfast.delay.00` rests for one unit."""
    return f"holdfast.delay.{level:02d}"


def levels_for(max_delay: float) -> int:
    """How many levels delays of up to `max_delay` seconds need, rounded ones too."""
    return units(rounded(max_delay)).bit_length()


def units(delay: float) -> int:
    """The delay in whole units, at least 1: nothing that waits comes back at once."""
    return max(1, min(round(delay / UNIT), MOST))


def rounded(delay: float) -> float:
    """A delay with at most 6 significant binary digits: at most 6 hops, at most 1.6 % off."""
    whole = units(delay)
    step = 1 << max(0, whole.bit_length() - SIGNIFICANT_BITS)
    nearest = math.floor(whole / step + 0.5) * step
    return (nearest if nearest <= MOST else nearest - step) * UNIT


def address(delay: float, target: str) -> tuple[str, str]:
    """Exchange and routing key that bring a message to `target` after `delay` seconds."""
    whole = units(delay)
    return level_name(whole.bit_length() - 1), ".".join(f"{whole:0{BITS}b}") + "." + target


def to_queue(queue: str) -> str:
    """The target of a copy that goes back to one queue."""
    return f"queue.{queue}"


def to_listeners(event_type: str) -> str:
    """The target of a delayed event: every queue bound for its type."""
    return f"event.{event_type}"


def arrival(target: str) -> str:
    """The binding key with which `holdfast.delay.out` delivers a target, whatever the delay was."""
    return "*." * BITS + target


def ladder(max_delay: float) -> Topology:
    """The shared levels, declared as far up as `max_delay` seconds needs."""
    exchanges = [Exchange(UNROUTED, "fanout"), Exchange(OUT, "topic", {"alternate-exchange": UNROUTED})]
    queues = [resting_queue(UNROUTED)]
    bindings = [Binding(UNROUTED, UNROUTED, "")]
    for level in range(levels_for(max_delay)):
        name, lower = level_name(level), level_name(level - 1) if level else OUT
        higher_digits = "*." * (BITS - 1 - level)
        exchanges.append(Exchange(name))
        queues.append(Queue(name, _rest(UNIT * (1 << level), then=lower)))
        bindings.append(Binding(name, name, f"{higher_digits}1.#"))
        bindings.append(Binding(name, lower, f"{higher_digits}0.#", to_exchange=True))
    return Topology(tuple(exchanges), tuple(queues), tuple(bindings))


def _rest(seconds: float, *, then: str) -> dict[str, object]:
    return {
        "x-queue-type": "quorum",
        "x-message-ttl": round(seconds * 1000),
        "x-dead-letter-exchange": then,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
