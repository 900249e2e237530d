"""The boards of followed requests, as tests look at them."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from waiting import eventually

from holdfast.config import IdempotencySettings
from holdfast.idempotency import Board, Entry, MemoryBoard, progress_of
from holdfast.idempotency.redis import RedisClaims


class WatchedBoard(MemoryBoard):
    """A board that notes in a journal when it says `done`."""

    def __init__(self, now: Callable[[], float], journal: list[str]) -> None:
        super().__init__(now)
        self._journal = journal

    async def open(self, request: str, entries: Sequence[Entry], *, cause: str | None, life: float) -> None:
        await super().open(request, entries, cause=cause, life=life)
        await self._note(request)

    async def mark(self, request: str, entry: Entry, *, life: float) -> None:
        await super().mark(request, entry, life=life)
        await self._note(request)

    async def _note(self, request: str) -> None:
        if progress_of(await self.read(request), 0.0).done:
            self._journal.append("done")


@asynccontextmanager
async def a_board(redis_url: str, prefix: str) -> AsyncIterator[Board]:
    """The boards below a prefix."""
    claims = RedisClaims(redis_url, IdempotencySettings(prefix=prefix))
    try:
        yield claims.board
    finally:
        await claims.close()


async def until_listening(board: Board, count: int) -> None:
    """Wait until so many queues are announced: an event that is published before is not followed to the others."""

    async def announced() -> int:
        return len(await board.listeners())

    await eventually(announced, count)
