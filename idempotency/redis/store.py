"""Claims in Redis: one server, Sentinel or Cluster. Scripts of one turn of the loop travel together."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any, Final, TypeAlias

from redis.asyncio import RedisCluster as AsyncRedisCluster

from ...config import IdempotencySettings
from ..availability import StoreUnavailable
from ..port import (
    Acquired,
    Answer,
    Busy,
    Claim,
    Completion,
    Done,
    Endangered,
    Mismatch,
    Suspect,
    heartbeat_key,
)
from . import lua
from .checks import check
from .clients import Server, sentinels_of
from .errors import FAULTS, TRANSIENT, unavailable

_ROUNDS: Final = 3  # a claim may change hands while its owner's heartbeat is looked at
_SUSPECT: Final = -100
_ACQUIRED: Final = Acquired()
_COMPLETIONS: tuple[Completion, ...] = ("fenced", "recorded", "absent")
_TOGETHER: Final = 100  # keys in one run of a script: Redis serves nobody else meanwhile
_MOST: Final = 1_000  # keys in one pipeline

Execute: TypeAlias = "Callable[[Sequence[Group], bool], Awaitable[list[Any]]]"
"""Run scripts, by their digests or in full."""


class RedisClaims:
    """See `idempotency.ClaimStore`."""

    def __init__(self, url: str, settings: IdempotencySettings) -> None:
        server = Server.of(url, settings)
        self._client, self._patience = server.asynchronous(), server.patience
        self._settings = settings
        self._window = round(settings.ttl * 1000)
        self._complete, self._release = lua.COMPLETE, lua.RELEASE
        alone = isinstance(self._client, AsyncRedisCluster)  # keys of a cluster live apart
        self._batches = Batches(self._execute, together=1 if alone else _TOGETHER)

    async def claim(self, claim: Claim, *, alone: bool = False, max_crashes: int = 3) -> Answer:
        arguments = (claim.token, claim.fingerprint, claim.owner, self._window, int(alone), max_crashes)
        for _ in range(_ROUNDS):
            reply = await self._batches.ask(lua.CLAIM, claim.key, arguments)
            if reply == 0:
                return _ACQUIRED
            if isinstance(reply, int):
                return _answer(reply)
            token, owner = reply[1:9], reply[17:25]
            if (left := await self._life_of(owner)) > 0:
                return Busy(left, token)
            await self._batches.ask(lua.ORPHAN, claim.key, (token, self._window))
        return Busy()

    async def complete(self, claim: Claim) -> Completion:
        arguments = (claim.token, claim.fingerprint, self._window)
        return _COMPLETIONS[await self._batches.ask(self._complete, claim.key, arguments)]

    async def release(self, claim: Claim, *, forget: bool = False) -> None:
        await self._batches.ask(self._release, claim.key, (claim.token, self._window, int(forget)))

    async def close(self) -> None:
        await self._batches.close()
        await self._client.aclose()
        for sentinel in sentinels_of(self._client):
            await sentinel.aclose()

    async def findings(self) -> list[Endangered]:
        """Return what of this server endangers the claims. Raises `StoreUnavailable`, `ConfigurationError`."""
        try:
            async with asyncio.timeout(self._patience):
                findings, has_flags = await check(self._client)
        except TimeoutError as error:
            raise unavailable(error) from None
        scripts = (lua.COMPLETE, lua.RELEASE)
        self._complete, self._release = scripts if has_flags else (script.without_flags for script in scripts)
        return findings

    async def _life_of(self, owner: bytes) -> float:
        """Return how many seconds the owner's heartbeat lives on; below 0 where it is gone."""
        left: int = await self._batches.ask(lua.LIFE, heartbeat_key(self._settings.prefix, owner), ())
        return left / 1000

    async def _execute(self, groups: "Sequence[Group]", full: bool) -> list[Any]:
        """Run scripts in one pipeline. Returns a reply or an error for each."""
        try:
            async with asyncio.timeout(self._patience):
                pipeline = self._client.pipeline(transaction=False)
                for group in groups:
                    name, script = ("EVAL", group.script.source) if full else ("EVALSHA", group.script.sha)
                    pipeline.execute_command(name, script, len(group.keys), *group.keys, group.width, *group.arguments)
                return list(await pipeline.execute(raise_on_error=False))
        except FAULTS as error:  # OSError: TimeoutError is one
            return [error] * len(groups)


def _answer(reply: int) -> Answer:
    match reply:
        case -1:
            return Done()
        case -2:
            return Mismatch()
        case crashes if crashes > 0:
            return Acquired(crashes)
        case _:
            return Suspect(_SUSPECT - reply)


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

    def __init__(self, execute: Execute, *, together: int = _TOGETHER) -> None:
        self._execute = execute
        self._together = together
        self._groups_at_once = max(1, _MOST // together)
        self._waiting: list[Group] = []
        self._open: dict[lua.Script, Group] = {}  # of those that wait, the ones with room
        self._script_of: dict[str, lua.Script] = {}  # of each key in an open group
        self._task: asyncio.Task[None] | None = None

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
