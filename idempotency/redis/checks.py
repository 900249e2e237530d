"""What of a Redis server may make events repeat: its version, its eviction, its persistence."""

from typing import Any

from redis import exceptions as faults
from redis.asyncio import RedisCluster as AsyncRedisCluster

from ...events import ConfigurationError
from ..port import Endangered
from .clients import AsyncClient
from .errors import FAULTS, REFUSED, unavailable
from .lua import FLAGGED


async def check(client: AsyncClient) -> tuple[list[Endangered], bool]:
    """Return the findings, and whether scripts may have flags (`lua.py`), which no version is asked for: this user may
    not be allowed to read it.

    Raises `StoreUnavailable`, and `ConfigurationError` where the login is refused or the server is not Redis.
    """
    try:
        has_flags = await _knows_flags(client)
        try:
            info = await _info(client)
        except faults.NoPermissionError:
            text = "this user may not read INFO: eviction, persistence and version of Redis are unchecked"
            return [Endangered("redis-unread", text)], has_flags
    except REFUSED as error:
        raise ConfigurationError(f"HOLDFAST_IDEMPOTENCY__URL: Redis refused the login: {error}") from None
    except faults.InvalidResponse as error:
        raise ConfigurationError(f"HOLDFAST_IDEMPOTENCY__URL: what answers there is not Redis: {error}") from None
    except FAULTS as error:
        raise unavailable(error) from None
    version = str(info.get("redis_version", ""))
    return [*_version(version, has_flags), *_eviction(info), *await _persistence(client, info)], has_flags


async def _info(client: AsyncClient) -> dict[str, Any]:
    if isinstance(client, AsyncRedisCluster):
        await client.initialize()
        return dict(await client.info(target_nodes=client.get_primaries()[0]))
    return dict(await client.info())


async def _knows_flags(client: AsyncClient) -> bool:
    try:
        await client.eval(FLAGGED, 0)
    except faults.NoPermissionError:
        return True  # a claim says which right is lacking
    except faults.ResponseError as error:
        return "compiling" not in str(error)
    return True


def _version(version: str, has_flags: bool) -> list[Endangered]:
    if has_flags and version.partition(".")[0] not in ("2", "3", "4", "5", "6"):
        return []
    text = f"Redis {version} is older than 7: out of memory, it refuses completions as well, and events repeat"
    return [Endangered("redis-old", text)]


def _eviction(memory: dict[str, Any]) -> list[Endangered]:
    policy = str(memory.get("maxmemory_policy", "noeviction"))
    if policy == "noeviction":
        return []
    text = f"maxmemory-policy is {policy}: Redis may evict claims, and events repeat; set it to noeviction"
    return [Endangered("redis-evicts", text)]


async def _persistence(client: AsyncClient, info: dict[str, Any]) -> list[Endangered]:
    if info.get("aof_enabled"):
        return []
    try:
        saved = await client.config_get("save")
    except FAULTS:
        return []  # many hosted servers allow no CONFIG
    if isinstance(saved, dict) and not any(saved.values()):
        text = "Redis keeps nothing on disk: a restart forgets every completed event; set `appendonly yes`"
        return [Endangered("redis-forgets", text)]
    return []
