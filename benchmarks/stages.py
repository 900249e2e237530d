"""Where a message's time goes: each stage of a delivery alone, in microseconds, the least of several runs.

    python benchmarks/stages.py

No server is needed. The stages call the product's own functions with a message as it comes from the wire.
"""

import asyncio
import random
import sys
import time
import timeit
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from holdfast import Event, Settings, Worker
from holdfast.broker import REAL, Delivery
from holdfast.broker.amqp.confirms import Confirms
from holdfast.broker.amqp.deliveries import Acks, Deliveries
from holdfast.broker.amqp.splitter import Splitter
from holdfast.broker.codec import Packed, pack
from holdfast.consumer.claims import Unclaimed
from holdfast.consumer.context import Surroundings
from holdfast.consumer.decide import decide, policy_of
from holdfast.consumer.dependencies import Tools
from holdfast.consumer.following import Follower
from holdfast.consumer.in_flight import InFlight, identity_of
from holdfast.consumer.outcome import HANDLED, Ready, Succeeded
from holdfast.consumer.pipeline import Pipeline
from holdfast.consumer.run import Ran, compose
from holdfast.consumer.settle import settled
from holdfast.consumer.slots import Slot, Slots
from holdfast.consumer.subscription import Subscription
from holdfast.events import Message, encode, read_incoming, seal, to_message
from holdfast.idempotency import WorkerClaims, no_claims
from holdfast.telemetry import FactLog, LogContext, Metrics, Spans, Started, fan_out

MESSAGES = 200


class Order(Event, type="order"):
    number: int
    note: str


async def handle(event: Order) -> None: ...


ORDER = Order(number=1, note="x" * 290)
MESSAGE = to_message(seal(ORDER, source="shop"), exchange="events")
PACKED = pack(MESSAGE)
worker = Worker("w")
worker.handler(Order)(handle)
[SPEC] = worker.handlers
NOW = datetime.now(UTC)
INCOMING = read_incoming(MESSAGE, NOW)
NOBODY: Any = None
DELIVERY = Delivery(MESSAGE, "w.handle", 1, 1, False, NOBODY)
LOG = LogContext(queue="w.handle", handler="handle")
CONTEXT = LOG.context
SLOT = Slot(Slots(1).lane(1, lambda delivery, slot: None))
FLIGHT = InFlight(DELIVERY, INCOMING, identity_of(MESSAGE), SLOT, CONTEXT)
POLICY = policy_of(SPEC, Settings(_env_file=None), 5.0)  # type: ignore[call-arg]


def from_the_socket(tag: int = 1, messages: int = MESSAGES, packed: Packed = PACKED) -> bytes:
    """What a broker sends for some deliveries."""
    published = packed.frames(1, 131_072)
    size = int.from_bytes(published[3:7])
    method = b"\x00\x3c\x00\x3c\x04ctag" + tag.to_bytes(8) + b"\x00" + published[13 : 7 + size - 1]
    return messages * (b"\x01\x00\x01" + len(method).to_bytes(4) + method + b"\xce" + published[8 + size :])


def per_message(function: Callable[[], object], messages: int = 1) -> float:
    runs = max(10, 20_000 // messages)
    return min(timeit.repeat(function, number=runs, repeat=7)) / runs / messages * 1e6


async def per_task(function: Callable[[], Awaitable[None]]) -> float:
    """A task of its own for each message, in a context of its own, with what is called when it ends."""
    loop, best = asyncio.get_running_loop(), float("inf")
    for _ in range(7):
        began, tasks = loop.time(), []
        for _ in range(2_000):
            task = loop.create_task(function(), context=CONTEXT.copy())  # type: ignore[arg-type]
            task.add_done_callback(lambda ended: None)
            tasks.append(task)
        await asyncio.gather(*tasks)
        best = min(best, (loop.time() - began) / 2_000 * 1e6)
    return best


class OnTheWire:
    """A consumer whose broker is a list of bytes: deliveries come out of the splitter, acks go into nothing."""

    attached = True

    def __init__(self, pipeline: Pipeline, slots: Slots) -> None:
        self.deliveries = Deliveries(self.receive, Nowhere(), 1)  # type: ignore[arg-type]
        self._lane = slots.lane(64, pipeline.start)
        self._subscription = Subscription(
            SPEC, NOBODY, pipeline, self._lane, prefetch=2 * MESSAGES, needs=(), emit=lambda _: None
        )

    def receive(self, message: Message, tag: int, redelivered: bool) -> None:
        self._subscription._receive(Delivery(message, "w.handle", tag, 1, redelivered, self))

    def is_current(self, delivery: Delivery) -> bool:
        return True

    async def ack(self, delivery: Delivery) -> bool:
        return self.deliveries.ack(delivery.tag)

    async def give_back(self, delivery: Delivery) -> bool:
        return self.deliveries.give_back(delivery.tag)

    async def stop(self, *, close: bool) -> None: ...


class Nowhere:
    """A transport that writes nothing."""

    def is_closing(self) -> bool:
        return False

    def write(self, data: bytes) -> None: ...


async def whole() -> float:
    """Microseconds of CPU from the bytes that were read to the acks that are written, everything on but the socket."""
    metrics = Metrics()
    metrics(Started("w", ("w.handle",), 1, ("order",)))
    emit = fan_out((metrics, FactLog(0)))
    settings = Settings(_env_file=None)  # type: ignore[call-arg]
    spans, claims = Spans(), no_claims()
    store = WorkerClaims(claims, prefix="w", clock=REAL, luck=random.random, emit=emit)
    around = Surroundings("w.handle", "handle", "w", None, settings, store.lease, spans)
    tools = Tools(NOBODY, store, REAL, random.random, emit, spans)
    handler = compose(SPEC, (), NOBODY)
    pipeline = Pipeline(
        SPEC,
        handler,
        around,
        tools,
        Unclaimed(),
        Follower(None, SPEC.queue, REAL),
        cancel_grace=5,
        prefetch=2 * MESSAGES,
    )
    wire, splitter = OnTheWire(pipeline, Slots(64)), Splitter(lambda data: None)
    splitter.tap(1, wire.deliveries)
    best, tag = float("inf"), 0
    for _ in range(60):
        stream = b"".join(from_the_socket(tag + number + 1, 1) for number in range(MESSAGES))
        tag += MESSAGES
        began = time.process_time()
        splitter.feed(stream)
        while pipeline.in_flight:
            await asyncio.wait(pipeline.in_flight)
        best = min(best, time.process_time() - began)
    return best / MESSAGES * 1e6


async def main() -> None:
    stream, splitter = from_the_socket(), Splitter(lambda data: None)
    splitter.tap(1, Deliveries(lambda *taken: None, NOBODY, 1))
    metrics = Metrics()
    metrics(Started("w", ("w.handle",), 1, ("order",)))
    emit, log = fan_out((metrics,)), FactLog()
    ran = Ran(Succeeded(), 1, 0.001)
    fact = settled(FLIGHT, ran, HANDLED, "recorded", SPEC)
    acks = Acks()

    def ack_all() -> None:
        first = acks._head
        for tag in range(first, first + MESSAGES):
            acks.ack(tag)
        acks.take()

    def confirm_all() -> None:
        confirms = Confirms()
        for _ in range(MESSAGES):
            confirms.expect(MESSAGE)
        confirms.take(1, b"\x00\x3c\x00\x50" + MESSAGES.to_bytes(8) + b"\x01", 0, 13)

    def decided() -> object:
        return decide(Ready(ORDER), INCOMING, POLICY, runs=0, now=NOW, luck=0.5)

    consuming = {
        "frames split, message decoded": per_message(lambda: splitter.feed(stream), MESSAGES),
        "metadata, history, identity": per_message(lambda: (read_incoming(MESSAGE, NOW), identity_of(MESSAGE))),
        "in flight, context": per_message(lambda: InFlight(DELIVERY, INCOMING, None, SLOT, CONTEXT.copy())),
        "task begun, switched to, ended": await per_task(lambda: handle(ORDER)),
        "event's ids bound to the log": per_message(lambda: LOG.bind(INCOMING.metadata, 1)),
        "body read by pydantic": per_message(lambda: SPEC.read(INCOMING)),
        "decided": per_message(decided),
        "settled: one fact": per_message(lambda: settled(FLIGHT, ran, HANDLED, "recorded", SPEC)),
        "metrics": per_message(lambda: emit(fact)),
        "log, beyond its rate": per_message(lambda: log(fact)),
        "acks": per_message(ack_all, MESSAGES),
        "a whole message, without the socket": await whole(),
    }
    publishing = {
        "event sealed": per_message(lambda: seal(ORDER, source="shop")),
        "of that, its JSON": per_message(lambda: encode(ORDER)),
        "message made": per_message(lambda: to_message(seal(ORDER, source="shop"), exchange="events"))
        - per_message(lambda: seal(ORDER, source="shop")),
        "packed into frames": per_message(lambda: pack(MESSAGE).frames(1, 131_072)),
        "confirm awaited and told": per_message(confirm_all, MESSAGES),
    }
    for title, stages in (("consume", consuming), ("publish", publishing)):
        print(f"{title}, microseconds a message, {type(asyncio.get_running_loop()).__module__}")
        for stage, microseconds in stages.items():
            print(f"  {stage:36} {microseconds:6.2f}")


if __name__ == "__main__":
    if "--uvloop" in sys.argv:
        import uvloop

        uvloop.run(main())
    else:
        asyncio.run(main())
