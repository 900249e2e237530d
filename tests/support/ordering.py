"""Ordered workers in processes of their own that are killed, stopped, frozen and cut off from a broker that restarts,
and what must hold all the same."""

import asyncio
import os
import random
import signal
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from children import Child, a_child
from order_app import Placed
from proxy import Proxy, proxy_to
from running import publish_all
from waiting import eventually

from holdfast import Settings
from holdfast.consumer.ordering.asking import ask_owner
from holdfast.testing.servers import Node

Fault = Callable[[], Awaitable[None]]

SOME = 5
"""Faults of a run that is no soak."""


@dataclass(frozen=True)
class Line:
    """What a handler did."""

    did: str
    order: str
    number: int
    fence: int
    process: int


def lines_of(ledger: Path) -> list[Line]:
    words = (line.split() for line in ledger.read_text().splitlines())
    return [Line(did, order, int(number), int(fence), int(process)) for did, order, number, fence, process in words]


class Crew:
    """Processes that share one ordered queue, or its partitions. `killed` are those that did not end what they ran,
    `cut_off` those that lost their queue a moment before they could know it."""

    def __init__(
        self,
        node: Node,
        settings: Settings,
        ledger: Path,
        stack: AsyncExitStack,
        luck: random.Random,
        partitions: int,
    ) -> None:
        ledger.touch()
        self.killed: set[int] = set()
        self.cut_off: set[int] = set()
        self._node = node
        self._proxies: dict[int, Proxy] = {}
        self._partitions = partitions
        self._settings = settings
        self._ledger = ledger
        self._stack = stack
        self._luck = luck
        self._children: list[Child] = []
        self._published = 0
        self._publishing = asyncio.Lock()

    async def add(self) -> None:
        """Start one more process."""
        url = self._settings.broker.url.get_secret_value()
        proxy = await self._stack.enter_async_context(proxy_to(url))
        child = a_child(
            self._settings,
            "order_app",
            queues=attached(self._partitions),
            TEST_LEDGER=str(self._ledger),
            TEST_PARTITIONS=str(self._partitions),
            HOLDFAST_BROKER__HEARTBEAT="5",
            HOLDFAST_BROKER__URL=proxy.url(url),
        )
        self._children.append(await self._stack.enter_async_context(child))
        self._proxies[self._children[-1].pid] = proxy

    async def publish(self, orders: str, count: int) -> None:
        """Publish events of each order. Two producers at a time would have no order between them."""
        async with self._publishing:
            numbers = range(self._published, self._published + count)
            self._published += count
            await publish_all(self._settings, [Placed(order=order, number=n) for n in numbers for order in orders])

    async def kill(self) -> None:
        """Kill one, and start another."""
        child = self._children.pop(self._luck.randrange(len(self._children)))
        self.killed.add(child.pid)
        child.send(signal.SIGKILL)
        await child.ended()
        await self.add()

    async def stop(self) -> None:
        """Stop one as a rolling deploy does."""
        child = self._children.pop(self._luck.randrange(len(self._children)))
        child.send(signal.SIGTERM)
        await child.ended()
        await self.add()

    async def replace(self) -> None:
        """Replace the one that was added first as a rolling deploy does: another one is there before it stops."""
        await self.add()
        await self.leave()

    async def leave(self) -> None:
        """Stop the one that was added first."""
        child = self._children.pop(0)
        child.send(signal.SIGTERM)
        await child.ended()

    async def freeze(self) -> None:
        """Freeze one until another has handled something, or until its connections have ended."""
        child = self._luck.choice(self._children)
        self.killed.add(child.pid)
        child.send(signal.SIGSTOP)
        before = len(lines_of(self._ledger))
        await self.publish("abcd", 5)
        try:
            await eventually(lambda: len(lines_of(self._ledger)) > before + 5, within=60)
        finally:
            child.send(signal.SIGCONT)

    async def cut(self) -> None:
        """Cut the connections of one."""
        child = self._luck.choice(self._children)
        self.cut_off.add(child.pid)
        self._proxies[child.pid].cut()

    async def restart(self) -> None:
        """Restart the broker while events are handled. Nothing is published meanwhile."""
        await self.publish("abcd", 25)
        async with self._publishing:
            self.cut_off |= {child.pid for child in self._children}
            await asyncio.to_thread(self._node.stop)
            await asyncio.to_thread(self._node.start)

    async def own_it_all(self, queue: str) -> None:
        """Let one more process be the owner of all, and stop it. The others were killed one after the other, so one may
        have been in a take-over then, and its marks are for the next owner to remove."""
        async with AsyncExitStack() as self._stack:
            await self.add()
            await ask_owner(self._settings, queue, "list")
            child = self._children.pop()
            child.send(signal.SIGTERM)
            await child.ended()

    async def under_load(self, change: Fault) -> None:
        """Make a change while events are published."""
        publishing = asyncio.create_task(self.publish("abcd", 25))
        await change()
        await publishing

    async def until_handled(self, orders: str) -> None:
        """Wait until every event of these orders has come to its end."""
        wanted = {(order, number) for order in orders for number in range(self._published)}
        try:
            await eventually(lambda: wanted <= handled(lines_of(self._ledger)), within=120)
        except AssertionError:
            left = sorted(wanted - handled(lines_of(self._ledger)))
            logs = "\n".join(line for child in self._children for line in ["--", *child.said[-5:], *child.log[-15:]])
            raise AssertionError(f"{len(left)} of {len(wanted)} left: {left[:10]}\n{logs}") from None


def attached(partitions: int) -> int:
    """How many queues a worker of so many partitions is in line for."""
    return 1 if partitions == 1 else partitions + 1


def handled(lines: list[Line]) -> set[tuple[str, int]]:
    return {(line.order, line.number) for line in lines if line.did == "ended"}


def inversions(lines: list[Line]) -> list[tuple[str, int, int]]:
    """Events that first ended before an earlier one of their order."""
    last: dict[str, int] = defaultdict(lambda: -1)
    seen: set[tuple[str, int]] = set()
    wrong = []
    for line in lines:
        if line.did != "ended" or (line.order, line.number) in seen:
            continue
        seen.add((line.order, line.number))
        if line.number != last[line.order] + 1:
            wrong.append((line.order, last[line.order], line.number))
        last[line.order] = line.number
    return wrong


def overlaps(lines: list[Line], killed: set[int]) -> list[Line]:
    """Events that began while another of their order ran, in a process that was not lost."""
    running: dict[str, Counter[int]] = defaultdict(Counter)
    wrong = []
    for line in lines:
        others = {process for process, count in running[line.order].items() if count > 0} - killed
        if line.did == "began" and others:
            wrong.append(line)
        running[line.order][line.process] += 1 if line.did == "began" else -1
    return wrong


def sinking_fences(lines: list[Line], killed: set[int], partitions: int = 1) -> list[Line]:
    """Events that began with a lower fence than one before them, in a process that was not lost: of all orders with one
    partition, of the same order with several."""
    highest: dict[str, int] = defaultdict(int)
    wrong = []
    for line in lines:
        apart = line.order if partitions > 1 else ""
        if line.did == "began" and line.fence < highest[apart] and line.process not in killed:
            wrong.append(line)
        highest[apart] = max(highest[apart], line.fence)
    return wrong


async def at_random(crew: Crew, luck: random.Random, faults: int) -> None:
    """Let faults happen while events are published."""
    kinds: list[Fault] = [crew.kill, crew.stop, crew.freeze]
    if faults > SOME:  # in test_ordering.py workers are cut off and a broker restarts, too
        kinds += [crew.cut, crew.restart]
    for number in range(faults):
        await crew.under_load(kinds[number] if number < len(kinds) else luck.choice(kinds))


def seed_of_environment() -> int:
    """The seed of a soak: TEST_SEED, or a new one."""
    return int(os.environ.get("TEST_SEED") or random.randrange(10**6))
