"""Runs of scripts, collected and sent in pipelines."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any, Final, TypeAlias

from redis.exceptions import ResponseError

from ..availability import StoreUnavailable
from . import lua
from .errors import TRANSIENT, unavailable

TOGETHER: Final = 100
"""How many keys are in one run of a script at most: Redis serves nobody else meanwhile."""

_MOST: Final = 1_000  # keys in one pipeline

Execute: TypeAlias = "Callable[[Sequence[Group], bool], Awaitable[list[Any]]]"
"""Run scripts, by their digests or in full."""


@dataclass(slots=True, eq=False)
class Group:
    """Keys for one run of a script, with their arguments, `width` for each, and the futures of their answers."""

    script: lua.Script
    width: int
    keys: list[str] = field(default_factory=list)
    arguments: list[bytes | int] = field(default_factory=list)
    futures: list["asyncio.Future[Any]"] = field(default_factory=list)


class Batches:
    """Collects runs of scripts and sends them in pipelines, one at a time, in the order they came.

    `execute` returns a reply or an error for each group. It runs in a task of its own: a caller that is cancelled
    takes no answer of another. `together` is the most keys for one run of a script.
    """

    def __init__(self, execute: Execute, *, together: int = TOGETHER) -> None:
        self._execute = execute
        self._together = together
        self._groups_at_once = max(1, _MOST // together)
        self._waiting: list[Group] = []
        self._open: dict[lua.Script, Group] = {}  # of those that wait, the ones with room
        self._script_of: dict[str, lua.Script] = {}  # of each key in an open group
        self._task: asyncio.Task[None] | None = None
        self.is_refused = False
        """Whether the server refused a run: it may have been demoted, and its address lead to another one by now."""

    def ask(self, script: lua.Script, key: str, arguments: Sequence[bytes | int]) -> "asyncio.Future[Any]":
        """Return a future of the script's answer for one key. It may raise `StoreUnavailable`.

        Scripts for one key run in the order they were asked for: a release must not overtake the claim it ends.
        """
        if self._script_of.setdefault(key, script) is not script:
            self._open, self._script_of = {}, {key: script}
        group = self._open.get(script)
        if group is None:
            group = self._open[script] = Group(script, len(arguments))
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
        batch: list[Group] = []
        try:
            while batch or self._waiting:
                is_second_try = bool(batch)
                if not batch:
                    batch, self._waiting = self._waiting[: self._groups_at_once], self._waiting[self._groups_at_once :]
                    self._open, self._script_of = {}, {}
                again: list[Group] = []
                for group, answers in zip(batch, await self._execute(batch, is_second_try), strict=True):
                    if isinstance(answers, TRANSIENT) and not is_second_try:
                        again.append(group)
                    else:
                        each = repeat(answers) if isinstance(answers, Exception) else answers
                        for future, answer in zip(group.futures, each, strict=False):
                            if isinstance(answer, Exception):
                                _fail(future, answer)
                                self.is_refused = self.is_refused or isinstance(answer, ResponseError)
                            elif not future.done():
                                future.set_result(answer)
                batch = again
        except BaseException as error:  # whoever waits for an answer has it, whatever it is
            why = f"{type(error).__name__}: {error}".removesuffix(": ")
            self._give_up(batch, StoreUnavailable(f"the claim store's connection ended: {why}"))
            if not isinstance(error, Exception):
                raise
        finally:
            self._task = None

    def _give_up(self, batch: list[Group], error: StoreUnavailable) -> None:
        for group in batch + self._waiting:
            for future in group.futures:
                _fail(future, error)
        self._waiting, self._open, self._script_of = [], {}, {}


def _fail(future: "asyncio.Future[Any]", error: Exception) -> None:
    if not future.done():
        future.set_exception(error if isinstance(error, StoreUnavailable) else unavailable(error))
