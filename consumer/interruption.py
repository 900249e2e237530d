"""Blocks that a signal ends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Interruption:
    """Cancels the block inside it once `interrupt` is called, and goes on behind it; a block that comes later does not
    begin to wait. The block stays in its task, on which context managers rely that are entered in it."""

    def __init__(self) -> None:
        self._limit: asyncio.Timeout | None = None
        self.is_over = False
        """Whether it was interrupted."""

    def interrupt(self) -> None:
        """End the block. Call it on the loop."""
        self.is_over = True
        if self._limit is not None:
            self._limit.reschedule(asyncio.get_running_loop().time())

    @asynccontextmanager
    async def block(self) -> AsyncIterator[None]:
        """Be the block that is interrupted."""
        try:
            async with asyncio.timeout(0 if self.is_over else None) as limit:
                self._limit = limit
                yield
        except TimeoutError:
            if not limit.expired():
                raise
        finally:
            self._limit = None
