"""The share of the partitions of an ordered handler that one worker owns.

Each worker consumes the queue of members, to which nobody publishes: its consumers are counted. The worker that is the
next owner of a partition, and has its share already, passes the partition on to the next in line. One that has more,
since others joined, releases the newest of them.
"""

import asyncio
from contextlib import suppress

from ...broker import Broker
from ...events import HoldfastError
from .partition import Partition

_EVERY = 2.0  # seconds between two counts of the members


class Share:
    """The partitions that this worker owns, or is about to own."""

    def __init__(self, broker: Broker, members: str, partitions: int) -> None:
        self._broker = broker
        self._members = members
        self._partitions = partitions
        self._owned: dict[Partition, None] = {}
        self._passes: dict[Partition, int] = {}

    async def admit(self, partition: Partition) -> bool:
        """Return whether this worker may own one more partition. Where nobody else has taken it, it may: a member that
        was counted may be gone."""
        members = await self._count()
        passes = self._passes.get(partition, 0)
        if len(self._owned) >= self._most(members) and passes < members:
            self._passes[partition] = passes + 1
            return False
        self._passes.pop(partition, None)
        self._owned[partition] = None
        return True

    def forget(self, partition: Partition) -> None:
        """Note that this worker does not own a partition any more."""
        self._owned.pop(partition, None)

    async def balance(self) -> None:
        """Be a member, and release what is more than the share. It does not end."""
        while True:
            with suppress(HoldfastError):  # it is tried again
                await self._be_member()
            await asyncio.sleep(_EVERY)

    async def _be_member(self) -> None:
        lost = asyncio.Event()
        members = await self._broker.attach(
            self._members, prefetch=1, on_taken=_ignore, on_lost=lambda reason: lost.set()
        )
        try:
            while not lost.is_set():
                most = self._most(await self._count())
                for partition in [*self._owned][most:]:
                    partition.release()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_EVERY):
                        await lost.wait()
        finally:
            await members.close()

    async def _count(self) -> int:
        depth = await self._broker.count(self._members)
        return 1 if depth is None else max(depth.consumers, 1)

    def _most(self, members: int) -> int:
        return -(-self._partitions // members)


def _ignore(message: object, tag: int, redelivered: bool) -> None:
    """Do nothing: nobody publishes to the queue of members."""
