"""The boards of followed requests in Redis, as tests look at them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from waiting import eventually

from holdfast.config import IdempotencySettings
from holdfast.idempotency import Board
from holdfast.idempotency.redis import RedisClaims


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
