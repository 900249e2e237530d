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

Address = Callable[[float], tuple[str, str]]


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
    def address(delay: float) -> tuple[str, str]:
        units = ladder.units(delay)
        return _level_before(units.bit_length() - 1), ".".join(f"{units:0{ladder.BITS}b}") + "." + target

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
    broker: Broker, pid: int, count: int, address: Callable[[], tuple[str, str]]
) -> tuple[float, list[float]]:
    """Publish `count` messages at once and wait for all. Returns the broker's CPU in us a message, and for each message
    the seconds between its confirm and its arrival."""
    arrivals = Arrivals()
    arrivals.awaited = count
    consumer = await broker.consume(QUEUE, prefetch=2 * AT_ONCE, on_delivery=arrivals)
    confirmed: dict[str | None, float] = {}
    exchange, key = address()
    gate = asyncio.Semaphore(AT_ONCE)

    async def publish() -> None:
        async with gate:
            message = Message(BODY, exchange, key, {"event-id": uuid7()}, message_id=uuid7())
            await broker.publish(message, timeout=60)
            confirmed[message.message_id] = time.perf_counter()

    used = cpu(pid)
    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(publish())
    await asyncio.wait_for(arrivals.complete.wait(), 300)
    used = cpu(pid) - used
    await consumer.stop(close=True)
    return used / count * 1e6, sorted(arrivals.times[one] - at for one, at in confirmed.items())


async def measure(url: str, pid: int, count: int, form: Topology, address: Address) -> list[str]:
    """One line for each delay."""
    broker = await open_broker(Settings(_env_file=None, broker={"url": url}), lambda fact: None)
    await broker.declare(form)
    lines = []
    await run(broker, pid, count // 4, lambda: ("", QUEUE))
    plain, _ = await run(broker, pid, count, lambda: ("", QUEUE))
    for delay in DELAYS:
        used, _ = await run(broker, pid, count, lambda delay=delay: address(delay))  # type: ignore[misc]
        _, alone = await run(broker, pid, 20, lambda delay=delay: address(delay))  # type: ignore[misc]
        began = time.perf_counter()
        await run(broker, pid, 5 * count, lambda delay=delay: address(delay))  # type: ignore[misc]
        rate = 5 * count / (time.perf_counter() - began - delay)
        late = [1000 * (wait - delay) for wait in (alone[0], alone[len(alone) // 2], alone[-1])]
        lines.append(
            f"{delay:5.1f} s, {ladder.units(delay).bit_count()} hops: {used - plain:6.0f} us more CPU, "
            f"{rate:6.0f} back a second, alone {late[0]:.1f} / {late[1]:.1f} / {late[2]:.1f} ms late"
        )
    await broker.close()
    return lines


async def main(count: int) -> None:
    with private_rabbitmq() as node:
        assert node.pid is not None
        print(f"RabbitMQ {node.ctl('version').strip()}, {count} messages of {len(BODY)} bytes")
        forms: list[tuple[str, Topology, Address]] = []
        for kind, target in (("copies", f"queue.{QUEUE}"), ("events", f"event.{EVENT}")):
            new = ladder.to_queue(QUEUE) if kind == "copies" else ladder.to_listeners(EVENT)
            forms.append((f"{kind} before", before(), address_before(target)))
            forms.append((f"{kind} now", now(), lambda delay, new=new: ladder.address(delay, new)))  # type: ignore[misc]
        for number, (name, form, address) in enumerate(forms):
            node.ctl("add_vhost", f"v{number}")
            node.ctl("set_permissions", "--vhost", f"v{number}", "guest", ".*", ".*", ".*")
            print(f"\n{name}")
            for line in await measure(f"{node.url}v{number}", node.pid, count, form, address):
                print(f"  {line}")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000))
