"""Scripts of one turn of the loop, which travel to Redis together."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

from ..port import StoreUnavailable
from .errors import is_transient, unavailable
from .lua import Script

TOGETHER = 100  # keys in one run of a script: Redis serves nobody else meanwhile
_MOST = 1_000  # keys in one pipeline

Command: TypeAlias = tuple[Any, ...]
Execute: TypeAlias = Callable[[list[Command]], Awaitable[list[Any]]]


class _Group:
    """Keys for one run of a script, with their arguments and the futures of their answers."""

    __slots__ = ("arguments", "futures", "keys", "script", "width")

    def __init__(self, script: Script, width: int) -> None:
        self.script = script
        self.width = width
        self.keys: list[str] = []
        self.arguments: list[bytes | int] = []
        self.futures: list[asyncio.Future[Any]] = []

    def command(self, name: str, script: str) -> Command:
        """Return the `EVAL` or `EVALSHA` of the group."""
        return (name, script, len(self.keys), *self.keys, self.width, *self.arguments)


class Batches:
    """Collects runs of scripts and sends them in pipelines, one at a time, in the order they came.

    `execute` sends commands and returns a reply or an error for each. It runs in a task of its own: a caller that is
    cancelled takes no answer of another. `together` is the most keys for one run of a script.
    """

    def __init__(self, execute: Execute, *, together: int = TOGETHER) -> None:
        self._execute = execute
        self._together = together
        self._groups_at_once = max(1, _MOST // together)
        self._waiting: list[_Group] = []
        self._open: dict[Script, _Group] = {}  # of those that wait, the ones with room
        self._script_of: dict[str, Script] = {}  # of each key in an open group
        self._task: asyncio.Task[None] | None = None

    def ask(self, script: Script, key: str, arguments: Sequence[bytes | int]) -> "asyncio.Future[Any]":
        """Return a future of the script's answer for one key. It may raise `StoreUnavailable`.

        Scripts for one key run in the order they were asked for: a release must not overtake the claim it ends.
        """
        if self._script_of.setdefault(key, script) is not script:
            self._open.clear()
            self._script_of = {key: script}
        group = self._open.get(script)
        if group is None:
            group = self._open[script] = _Group(script, len(arguments))
            self._waiting.append(group)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        group.keys.append(key)
        group.arguments += arguments
        group.futures.append(future)
        if len(group.keys) == self._together:
            del self._open[script]
        if self._task is None:  # it begins with the next turn, so that all that this turn still asks goes with it
            self._task = asyncio.create_task(self._work(), name="holdfast claims")
        return future

    async def close(self) -> None:
        """Send nothing more. Futures that still wait raise `StoreUnavailable`."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _work(self) -> None:
        batch: list[_Group] = []
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[: self._groups_at_once], self._waiting[self._groups_at_once :]
                self._open, self._script_of = {}, {}
                await self._send(batch)
        except BaseException as error:
            for group in batch + self._waiting:
                _answer(group, StoreUnavailable(f"the claim store's connection ended: {type(error).__name__}"))
            self._waiting, self._open, self._script_of = [], {}, {}
            raise
        finally:
            self._task = None

    async def _send(self, batch: list[_Group]) -> None:
        """Run the scripts in one pipeline. A script that the server did not know or could not run yet is sent once
        more, in full."""
        replies = await self._execute([group.command("EVALSHA", group.script.sha) for group in batch])
        again = [at for at, reply in enumerate(replies) if is_transient(reply)]
        if again:
            retried = await self._execute([batch[at].command("EVAL", batch[at].script.source) for at in again])
            for at, reply in zip(again, retried, strict=True):
                replies[at] = reply
        for group, reply in zip(batch, replies, strict=True):
            _answer(group, reply)


def _answer(group: _Group, reply: Any) -> None:
    answers = [reply] * len(group.futures) if isinstance(reply, Exception) else reply
    for future, answer in zip(group.futures, answers, strict=True):
        if future.done():
            continue
        if isinstance(answer, StoreUnavailable):
            future.set_exception(answer)
        elif isinstance(answer, Exception):
            future.set_exception(unavailable(answer))
        else:
            future.set_result(answer)
