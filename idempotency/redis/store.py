"""Claims in Redis: one server, Sentinel or Cluster. Scripts of one turn of the loop travel together."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from redis.asyncio import RedisCluster as AsyncRedisCluster

from ...config import IdempotencySettings
from ..board import LIFE, Mark
from ..keys import board_key, heartbeat_key
from ..port import Acquired, Answer, Busy, Claim, Completion, Done, Endangered, Mismatch, Suspect
from . import lua
from .batches import TOGETHER, Batches, Group
from .board import RedisBoard, marking
from .checks import check
from .clients import Server, sentinels_of
from .errors import FAULTS, unavailable

_ROUNDS: Final = 3  # a claim may change hands while its owner's heartbeat is looked at
_SUSPECT: Final = -100
_ACQUIRED: Final = Acquired()
_ENDS: Final = (lua.COMPLETE, lua.COMPLETE_AND_MARK, lua.RELEASE)
_COMPLETIONS: tuple[Completion, ...] = ("fenced", "recorded", "absent")


class RedisClaims:
    """See `idempotency.ClaimStore`."""

    def __init__(self, url: str, settings: IdempotencySettings) -> None:
        server = Server.of(url, settings)
        self._client, self._answer_limit = server.asynchronous(), server.answer_limit
        self._settings = settings
        self._window = round(settings.ttl * 1000)
        self._complete, self._complete_and_mark, self._release = _ENDS
        alone = isinstance(self._client, AsyncRedisCluster)  # keys of a cluster live apart
        self._batches = Batches(self._execute, together=1 if alone else TOGETHER)
        self.board = RedisBoard(self._batches, settings.prefix, is_beside_claims=not alone)

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

    async def complete(self, claim: Claim, mark: Mark | None = None) -> Completion:
        arguments = (claim.token, claim.fingerprint, self._window)
        if mark is None:
            return _COMPLETIONS[await self._batches.ask(self._complete, claim.key, arguments)]
        request, entry = mark
        key = board_key(self._settings.prefix, request).encode("utf-8", "surrogatepass")
        marked = (*arguments, key, *marking(entry, LIFE))
        return _COMPLETIONS[await self._batches.ask(self._complete_and_mark, claim.key, marked)]

    async def release(self, claim: Claim, *, forget: bool = False) -> None:
        await self._batches.ask(self._release, claim.key, (claim.token, self._window, int(forget)))

    async def close(self) -> None:
        try:
            await self._batches.close()
        finally:
            await self._client.aclose()
            for sentinel in sentinels_of(self._client):
                await sentinel.aclose()

    async def findings(self) -> list[Endangered]:
        """Return what of this server endangers the claims. Raises `StoreUnavailable`, `ConfigurationError`."""
        try:
            async with asyncio.timeout(self._answer_limit):
                findings, has_flags = await check(self._client)
        except TimeoutError as error:
            raise unavailable(error) from None
        ends = _ENDS if has_flags else (script.without_flags for script in _ENDS)
        self._complete, self._complete_and_mark, self._release = ends
        return findings

    async def _life_of(self, owner: bytes) -> float:
        """Return how many seconds the owner's heartbeat lives on; below 0 where it is gone."""
        left: int = await self._batches.ask(lua.LIFE, heartbeat_key(self._settings.prefix, owner), ())
        return left / 1000

    async def _execute(self, groups: Sequence[Group], full: bool) -> list[Any]:
        """Run scripts in one pipeline. Returns a reply or an error for each."""
        try:
            async with asyncio.timeout(self._answer_limit):
                if self._batches.is_refused:
                    await self._client.aclose()  # it connects anew
                    self._batches.is_refused = False
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
