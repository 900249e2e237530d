"""What of a Redis server may make events repeat: its version, its eviction, its persistence."""

from typing import Any

from redis import exceptions as faults
from redis.asyncio import RedisCluster as AsyncRedisCluster

from ...events import ConfigurationError
from ..port import Endangered
from .clients import AsyncClient
from .errors import FAULTS, REFUSED, unavailable


async def check(client: AsyncClient) -> tuple[list[Endangered], int | None]:
    """Return the findings, and the major version of the server; None where this user may not read it.

    Raises `StoreUnavailable`, and `ConfigurationError` where the login is refused or the server is not Redis.
    """
    try:
        server, memory, persistence = [await _info(client, part) for part in ("server", "memory", "persistence")]
    except REFUSED as error:
        if isinstance(error, faults.NoPermissionError):
            text = "this user may not read INFO: eviction, persistence and version of Redis are unchecked"
            return [Endangered("redis-unread", text)], None
        raise ConfigurationError(f"HOLDFAST_IDEMPOTENCY__URL: Redis refused the login: {error}") from None
    except faults.InvalidResponse as error:
        raise ConfigurationError(f"HOLDFAST_IDEMPOTENCY__URL: what answers there is not Redis: {error}") from None
    except FAULTS as error:
        raise unavailable(error) from None
    version = str(server.get("redis_version", "7"))
    major = int(version.partition(".")[0])
    return [*_version(version, major), *_eviction(memory), *await _persistence(client, persistence)], major


async def _info(client: AsyncClient, section: str) -> dict[str, Any]:
    if isinstance(client, AsyncRedisCluster):
        await client.initialize()
        return dict(await client.info(section, target_nodes=client.get_primaries()[0]))
    return dict(await client.info(section))


def _version(version: str, major: int) -> list[Endangered]:
    if major >= 7:
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
