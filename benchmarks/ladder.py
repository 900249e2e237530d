"""The delay ladder beside the one of before: CPU of the broker per message, messages a second, and how late they are.

    python benchmarks/ladder.py [messages]

Starts a private RabbitMQ node. Each form has a virtual host of its own and delays the same messages by the same times,
one form after the other. CPU is the Erlang machine's own, less what the same messages cost without a delay.
"""

import asyncio
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from holdfast import Settings
from holdfast.broker import Binding, Broker, Delivery, Exchange, Queue, Topology, ladder, open_broker, resting_queue
from holdfast.events import Message, uuid7
from holdfast.testing.servers import private_rabbitmq

DELAYS = (0.8, 3.2, 0.7, 6.3)  # seconds; on one level, on one higher up, on three, on six
MAX_DELAY = 86_400.0
QUEUE, EVENT = "shop.pack", "order.created"
BODY = b"x" * 320
AT_ONCE = 400
TICKS = os.sysconf("SC_CLK_TCK")

Address = Callable[[float], tuple[str, str, dict[str, str]]]


def before() -> Topology:
    """The ladder of before: 28 binary digits in the key, and each level passes a message on to the next lower one."""
    exchanges = [Exchange(ladder.OUT)]
    queues, targets = [resting_queue(QUEUE)], (f"queue.{QUEUE}", f"event.{EVENT}")
    bindings = [Binding(ladder.OUT, QUEUE, "*." * ladder.BITS + target) for target in targets]
    for level in range(ladder.levels_for(MAX_DELAY)):
        name, lower = _level_before(level), _level_before(level - 1) if level else ladder.OUT
        higher = "*." * (ladder.BITS - 1 - level)
        arguments = {
            "x-queue-type": "quorum",
            "x-message-ttl": round(1000 * ladder.UNIT * (1 << level)),
            "x-dead-letter-exchange": lower,
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        }
        exchanges.append(Exchange(name))
        queues.append(Queue(name, arguments))
        bindings.append(Binding(name, name, f"{higher}1.#"))
        bindings.append(Binding(name, lower, f"{higher}0.#", to_exchange=True))
    return Topology(tuple(exchanges), tuple(queues), tuple(bindings))


def _level_before(level: int) -> str:
    return f"holdfast.delay.{level:02d}"


def address_before(target: str) -> Address:
    def address(delay: float) -> tuple[str, str, dict[str, str]]:
        units = ladder.units(delay)
        return _level_before(units.bit_length() - 1), ".".join(f"{units:0{ladder.BITS}b}") + "." + target, {}

    return address


def now() -> Topology:
    return ladder.ladder(MAX_DELAY) + Topology(queues=(resting_queue(QUEUE),)) + ladder.arrivals(QUEUE, [EVENT])


class Arrivals:
    """Notes when each message came, and acks it."""

    def __init__(self) -> None:
        self.times: dict[str | None, float] = {}
        self.complete = asyncio.Event()
        self.awaited = 0
        self._acks: set[asyncio.Task[bool]] = set()

    def __call__(self, delivery: Delivery) -> None:
        self.times[delivery.message.message_id] = time.perf_counter()
        ack = asyncio.ensure_future(delivery.consumer.ack(delivery))
        self._acks.add(ack)
        ack.add_done_callback(self._acks.discard)
        if len(self.times) >= self.awaited:
            self.complete.set()


def cpu(pid: int) -> float:
    """Seconds of processor time the process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


async def run(
    broker: Broker, pid: int, count: int, address: tuple[str, str, dict[str, str]]
) -> tuple[float, float, list[float]]:
    """Publish `count` messages at once and wait for all.

    Returns the broker's CPU in us a message, the seconds until all were back, and the seconds from the confirm of each
    to its arrival, sorted.
    """
    arrivals, gate = Arrivals(), asyncio.Semaphore(AT_ONCE)
    arrivals.awaited = count
    consumer = await broker.consume(QUEUE, prefetch=2 * AT_ONCE, on_delivery=arrivals)
    confirmed: dict[str | None, float] = {}
    exchange, key, levels = address

    async def publish() -> None:
        async with gate:
            message = Message(BODY, exchange, key, {"event-id": uuid7(), **levels}, message_id=uuid7())
            await broker.publish(message, timeout=60)
            confirmed[message.message_id] = time.perf_counter()

    used, began = cpu(pid), time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(publish())
    await asyncio.wait_for(arrivals.complete.wait(), 300)
    used, took = cpu(pid) - used, time.perf_counter() - began
    await consumer.stop(close=True)
    return used / count * 1e6, took, sorted(arrivals.times[one] - at for one, at in confirmed.items())


async def main(count: int) -> None:
    with private_rabbitmq() as node:
        assert node.pid is not None
        print(f"RabbitMQ {node.ctl('version').strip()}, {count} messages of {len(BODY)} bytes")
        print("delay, hops: CPU of the broker, messages back a second, how late 20 sent by themselves are (p50, most)")
        brokers: dict[str, Broker] = {}
        for name, form in (("before", before()), ("now", now())):
            node.ctl("add_vhost", name)
            node.ctl("set_permissions", "--vhost", name, "guest", ".*", ".*", ".*")
            brokers[name] = await open_broker(
                Settings(_env_file=None, broker={"url": node.url + name}), lambda fact: None
            )
            await brokers[name].declare(form)
            plain, _, _ = await run(brokers[name], node.pid, count, ("", QUEUE, {}))
        for delay in DELAYS:
            for kind, target in (("copies", ladder.to_queue(QUEUE)), ("events", ladder.to_listeners(EVENT))):
                for name, address in (
                    ("before", address_before(target)),
                    ("now", lambda d, t=target: ladder.address(d, t)),
                ):
                    used, took, _ = await run(brokers[name], node.pid, count, address(delay))
                    _, _, alone = await run(brokers[name], node.pid, 20, address(delay))
                    late = [1000 * (wait - delay) for wait in (alone[len(alone) // 2], alone[-1])]
                    print(
                        f"{delay:4.1f} s, {ladder.units(delay).bit_count()}: {kind} {name:6}"
                        f" {used - plain:5.0f} us {count / (took - delay):6.0f} a second"
                        f" {late[0]:5.1f} {late[1]:5.1f} ms",
                        flush=True,
                    )
        for broker in brokers.values():
            await broker.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 2_000))
