"""The publisher of a run: what it publishes, and the ledger of what it was told."""

import asyncio
import random
import time
import uuid
from collections import Counter, defaultdict
from typing import Any

from fault_app import Blocking, Job, Link, Placed
from hostile import publish_raw
from ledgers import Fault, Outcome, Promise, Sent
from reader import Reader

from holdfast import Event, Publisher, PublishError, PublishRefused, Settings, Unroutable
from holdfast.events.envelope import seal

MIX = (
    *((Job, "return"),) * 40,
    *((Job, "linger"),) * 10,
    *((Job, "slow"),) * 6,
    *((Job, "fail once"),) * 9,
    *((Job, "fail"),) * 2,
    *((Placed, "return"),) * 11,
    *((Placed, "linger"),) * 2,
    *((Placed, "fail once"),) * 2,
    *((Blocking, "return"),) * 4,
    *((Blocking, "fail once"),) * 1,
    *((Link, "return"),) * 12,
    *((Link, "fail once"),) * 1,
)
"""What a load is made of, in hundredths."""

IN_ORDER = (*((Placed, "return"),) * 85, *((Placed, "linger"),) * 7, *((Placed, "fail once"),) * 8)
"""The same, of events whose order is kept."""


class Load:
    """Publishes until each event is confirmed, as one does who wants nothing lost."""

    def __init__(
        self,
        publisher: Publisher,
        settings: Settings,
        promise: Promise,
        luck: random.Random,
        reader: Reader,
        faults: list[Fault],
    ) -> None:
        self.sent: list[Sent] = []
        self._publisher, self._settings, self._promise, self._luck = publisher, settings, promise, luck
        self._reader, self._faults = reader, faults
        self._slots = asyncio.Semaphore(200)
        self._turns: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._placed = Counter[str]()

    async def publish(self, event: Event, *, times: int = 1, delay: float | None = None) -> None:
        """Publish an event until it is confirmed, and note what was said of it. More `times`: as a publisher does that
        is not sure."""
        key, seq = getattr(event, "key", ""), getattr(event, "seq", 0)
        envelope, at = seal(event, source="faults"), time.monotonic()
        event_id, told = envelope.metadata.event_id, list[Outcome]()
        async with self._slots:
            for _ in range(times):
                while True:
                    try:
                        await self._publisher.publish(envelope, delay=delay)
                        told.append("confirmed")
                        break
                    except Unroutable:
                        told.append("returned")
                    except PublishRefused:
                        told.append("nacked")
                    except PublishError:
                        told.append("unknown")
                    if len(told) > 60:
                        break
                    await asyncio.sleep(0.1)
        outcome: Outcome = "confirmed" if "confirmed" in told else told[-1]
        # One whose connection was lost before its confirm may be there several times.
        cuts = sum(fault.at <= time.monotonic() and at <= fault.until for fault in self._faults)
        self.sent.append(
            Sent(event_id, envelope.metadata.event_type, at, len(told) + cuts, outcome, tuple(told), key, seq)
        )
        if outcome == "confirmed":
            self._reader.expect(event_id, self._promise.routes[envelope.metadata.event_type][0])

    async def place(self, key: str, does: str = "return", *, times: int = 1) -> None:
        """Publish the next event of a key once the one before is confirmed: two at a time have no order."""
        async with self._turns[key]:
            self._placed[key] += 1
            await self.publish(Placed(key=key, seq=self._placed[key], does=does), times=times)

    async def publish_raw(self, messages: list[tuple[bytes, dict[str, Any]]]) -> None:
        """Publish what Holdfast would not, as jobs with an id, confirmed; what has an id of its own is left out."""
        at, url = time.monotonic(), self._settings.broker.url.get_secret_value()
        named = [
            (body, {"message_id": str(uuid.uuid4()), "app_id": "faults"} | properties)
            for body, properties in messages
            if "message_id" not in properties
        ]
        await asyncio.to_thread(publish_raw, url, self._settings.broker.exchange, "job", named)
        for _, properties in named:
            self.sent.append(Sent(properties["message_id"], "job", at, 1, "confirmed", ("confirmed",)))
            self._reader.expect(properties["message_id"], self._promise.routes["job"][0])

    async def steady(
        self, count: int, rate: float, mix: tuple[tuple[type[Event], str], ...] = MIX, delayed: float = 0.04
    ) -> None:
        """Publish `count` events at `rate` a second; a few of them twice, and a share of them `delayed`."""
        begin = time.monotonic()
        async with asyncio.TaskGroup() as publishing:
            for number in range(count):
                kind, does = self._luck.choice(mix)
                times = 2 if self._luck.random() < 0.02 else 1
                delay = self._luck.uniform(0.1, 1.5) if self._luck.random() < delayed else None
                if kind is Placed:
                    key = f"k{number % 7}"
                    publishing.create_task(self.place(key, does, times=times))
                else:
                    publishing.create_task(self.publish(kind(does=does), times=times, delay=delay))  # type: ignore[call-arg]
                await asyncio.sleep(max(0.0, begin + number / rate - time.monotonic()))
