"""`Following`: the progress of followed requests, for the programs that publish them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from ..broker import REAL
from ..config import Settings, load_settings
from ..idempotency import Board, Entry, Progress, StoreUnavailable, open_board, progress_of
from ..telemetry import finish

_SOON: Final = 0.02  # seconds between two looks at a board, at first
_AT_LAST: Final = 0.25
_UNKNOWN: Final = Progress("unknown")


class Following:
    """The progress of requests that were published with `follow=True`, from any process.

    `async with Following() as following: progress = await following.until_done(sent.correlation_id, within=1.5)`. One
    serves a whole process. It connects to the claim store (`HOLDFAST_IDEMPOTENCY__URL`) when it is first asked; while
    that is unavailable, progress is `unknown`.

    Whoever knows the name of a request may see its progress: authorise that as you do the request.

    Args:
        settings: The settings; by default those of the environment.

    Raises:
        ConfigurationError: A variable of the environment has a wrong value.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings or load_settings()
        self._board: Board | None = None
        self._close: Callable[[], Awaitable[None]] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection."""
        if self._close is not None:
            await finish(self._close())

    async def progress(self, request: str | None) -> Progress:
        """Return the progress of a request now.

        Args:
            request: The `correlation_id` of what `publish` returned.
        """
        try:
            return progress_of(await self._opened().read(request or ""), REAL.now().timestamp())
        except StoreUnavailable:
            return _UNKNOWN

    async def until_done(self, request: str | None, *, within: float) -> Progress:
        """Wait until a request is done, or has failed, or the time is over.

        Args:
            request: The `correlation_id` of what `publish` returned.
            within: The most seconds to wait.

        Returns:
            Its progress then.
        """
        latest = _UNKNOWN
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                async for progress in self.watch(request):
                    latest = progress
        return latest

    async def watch(self, request: str | None) -> AsyncIterator[Progress]:
        """Yield the progress of a request now, and whenever it has changed, until it is done or has failed.

        Args:
            request: The `correlation_id` of what `publish` returned.

        Returns:
            One progress after the other.
        """
        began, latest = REAL.time(), None
        while latest is None or latest.state not in ("done", "failed"):
            if (progress := await self.progress(request)) != latest:
                latest = progress
                yield progress
            else:
                await asyncio.sleep(min(max(_SOON, (REAL.time() - began) / 50), _AT_LAST))

    async def entries(self, request: str) -> list[Entry]:
        """Return the events of a request, each in each queue, as `holdfast follow` prints them.

        Args:
            request: The `correlation_id` of what `publish` returned.

        Raises:
            StoreUnavailable: The claim store is unavailable.
        """
        return await self._opened().read(request)

    async def forget(self, queue: str, request: str | None = None) -> None:
        """Wait for a queue no more, such as one that was deleted.

        Args:
            queue: Its name.
            request: The request that waits for it no more; by default those that are published from now on.

        Raises:
            StoreUnavailable: The claim store is unavailable.
        """
        await self._opened().forget(request, queue)

    def _opened(self) -> Board:
        if self._board is None:
            self._board, self._close = open_board(self._settings)
        return self._board
