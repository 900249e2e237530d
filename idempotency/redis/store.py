"""Claims in Redis: one server, Sentinel or Cluster."""

import asyncio
from typing import Any

from redis.asyncio import RedisCluster as AsyncRedisCluster

from ...config import IdempotencySettings
from ..keys import heartbeat_key
from ..port import Acquired, Answer, Busy, Claim, Completion, Done, Endangered, Mismatch, Suspect
from . import lua
from .batch import TOGETHER, Batches, Command
from .checks import check
from .clients import Server, sentinels_of
from .errors import FAULTS

_ROUNDS = 3  # a claim may change hands while its owner's heartbeat is looked at
_SUSPECT = -100
_ACQUIRED = Acquired()
_COMPLETIONS: tuple[Completion, ...] = ("fenced", "recorded", "absent")


class RedisClaims:
    """See `idempotency.ClaimStore`. All that is asked in one turn of the loop travels in one pipeline."""

    def __init__(self, url: str, settings: IdempotencySettings) -> None:
        self._client = Server.of(url, settings).asynchronous()
        self._settings = settings
        self._window = round(settings.ttl * 1000)
        self._complete, self._release = lua.COMPLETE, lua.RELEASE
        alone = isinstance(self._client, AsyncRedisCluster)  # keys of a cluster live apart
        self._batches = Batches(self._execute, together=1 if alone else TOGETHER)

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
        findings, major = await check(self._client)
        if major is not None:
            self._complete, self._release = lua.COMPLETE.for_version(major), lua.RELEASE.for_version(major)
        return findings

    async def _life_of(self, owner: bytes) -> float:
        """Return how many seconds the owner's heartbeat lives on; below 0 where it is gone."""
        left: int = await self._batches.ask(lua.LIFE, heartbeat_key(self._settings.prefix, owner), ())
        return left / 1000

    async def _execute(self, commands: list[Command]) -> list[Any]:
        """Send commands in one pipeline. Returns a reply or an error for each."""
        try:
            async with asyncio.timeout(2 * self._settings.timeout):
                pipeline = self._client.pipeline(transaction=False)
                for command in commands:
                    pipeline.execute_command(*command)
                return list(await pipeline.execute(raise_on_error=False))
        except FAULTS as error:  # OSError: TimeoutError is one
            return [error] * len(commands)


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
