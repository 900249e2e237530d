"""What is asked in one turn of the loop travels together."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from .port import StoreUnavailable

Question = TypeVar("Question")
Reply = TypeVar("Reply")
MOST = 1_000  # questions in one batch


class Batches(Generic[Question, Reply]):
    """Collects questions and asks them in batches, one batch at a time, in the order they came.

    `send` gives one reply or one error for each. It runs in a task of its own: whoever is cancelled while waiting
    leaves, and its reply with it.
    """

    def __init__(self, send: Callable[[Sequence[Question]], Awaitable[Sequence[Reply | StoreUnavailable]]]) -> None:
        self._send = send
        self._waiting: list[tuple[Question, asyncio.Future[Reply]]] = []
        self._task: asyncio.Task[None] | None = None

    def ask(self, question: Question) -> "asyncio.Future[Reply]":
        """A future of the reply. It may raise `StoreUnavailable`."""
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, future))
        if self._task is None:  # it begins with the next turn: whatever this turn still asks goes with it
            self._task = asyncio.create_task(self._work(), name="holdfast claims")
        return future

    async def close(self) -> None:
        """Nothing more is sent; who still waits is told that the store is away."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _work(self) -> None:
        batch: list[tuple[Question, asyncio.Future[Reply]]] = []
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
                replies = await self._send([question for question, _ in batch])
                for (_, future), reply in zip(batch, replies, strict=True):
                    _settle(future, reply)
        except BaseException as error:
            for _, future in batch + self._waiting:
                _settle(future, StoreUnavailable(f"the claim store's connection ended: {type(error).__name__}"))
            self._waiting = []
            raise
        finally:
            self._task = None


def _settle(future: "asyncio.Future[Reply]", reply: Reply | StoreUnavailable) -> None:
    if future.done():
        return
    if isinstance(reply, StoreUnavailable):
        future.set_exception(reply)
    else:
        future.set_result(reply)
