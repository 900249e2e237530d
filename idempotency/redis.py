"""Claims in Redis: one server, Sentinel or Cluster, with or without TLS. The only place that knows redis-py."""

import asyncio
import re
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import unquote, urlsplit

from redis import Redis, RedisCluster, Sentinel
from redis import exceptions as faults
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio import RedisCluster as AsyncRedisCluster
from redis.asyncio import Sentinel as AsyncSentinel
from redis.asyncio.cluster import ClusterNode as AsyncClusterNode
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from ..config import IdempotencySettings, explain_tls, secret_of
from ..events import ConfigurationError
from . import lua
from .batch import Batches
from .keys import heartbeat_key
from .port import Acquired, Answer, Busy, Claim, Completion, Done, Endangered, Mismatch, StoreUnavailable, Suspect

_ROUNDS = 3  # a claim may change hands while its owner's heartbeat is looked at
_DONE, _MISMATCH, _SUSPECT = -1, -2, -100
_COMPLETIONS: tuple[Completion, ...] = ("fenced", "recorded", "absent")
_FAULTS = (faults.RedisError, faults.RedisClusterException, OSError)  # no node answers: not a RedisError to redis-py
_REFUSED = (faults.AuthenticationError, faults.AuthorizationError, faults.NoPermissionError)
_REFUSED_IN_A_SCRIPT = ("The user executing the script can't", "ACL failure in script")  # up to Redis 7.0, since 7.2
Question: TypeAlias = tuple[lua.Script, str, tuple[bytes | int, ...]]
Asked: TypeAlias = tuple[int, str, tuple[bytes | int, ...]]
"""A question's place in its batch, its key and its arguments."""

_PLACE = re.compile(r"(?:connecting to|reading from) (\S+?)\.? ")
_TOGETHER = 100  # keys in one run of a script: Redis serves nobody else meanwhile


class RedisClaims:
    """A store of claims. Questions of one turn of the loop travel in one pipeline."""

    def __init__(self, url: str, settings: IdempotencySettings) -> None:
        self._client = _Server.of(url, settings).asynchronous()
        self._settings = settings
        self._window = round(settings.ttl * 1000)
        self._batches: Batches[Question, Any] = Batches(self._send)
        self._complete, self._release = lua.COMPLETE, lua.RELEASE
        self._most = 1 if isinstance(self._client, AsyncRedisCluster) else _TOGETHER

    async def claim(self, claim: Claim, *, alone: bool = False, max_crashes: int = 3) -> Answer:
        arguments = (claim.token, claim.fingerprint, claim.owner, self._window, int(alone), max_crashes)
        for _ in range(_ROUNDS):
            reply = await self._batches.ask((lua.CLAIM, claim.key, arguments))
            if isinstance(reply, int):
                return _answer(reply)
            token, owner = reply[1:9], reply[17:25]
            if (left := await self._life_of(owner)) > 0:
                return Busy(left, token)
            await self._batches.ask((lua.ORPHAN, claim.key, (token, self._window)))
        return Busy()

    async def complete(self, claim: Claim) -> Completion:
        arguments = (claim.token, claim.fingerprint, self._window)
        reply: int = await self._batches.ask((self._complete, claim.key, arguments))
        return _COMPLETIONS[reply]

    async def release(self, claim: Claim, *, forget: bool = False) -> None:
        await self._batches.ask((self._release, claim.key, (claim.token, self._window, int(forget))))

    async def close(self) -> None:
        await self._batches.close()
        await self._client.aclose()
        for sentinel in _sentinels(self._client):
            await sentinel.aclose()

    async def findings(self) -> list[Endangered]:
        """What of this server endangers the claims. Raises `StoreUnavailable`, `ConfigurationError`."""
        try:
            server, memory, kept = [await self._info(part) for part in ("server", "memory", "persistence")]
        except _REFUSED as error:
            if isinstance(error, faults.NoPermissionError):
                told = "this user may not read INFO: eviction, persistence and version of Redis are unchecked"
                return [Endangered("redis-unread", told)]
            raise ConfigurationError(f"HOLDFAST_IDEMPOTENCY__URL: Redis refused the login: {error}") from None
        except faults.InvalidResponse as error:
            raise ConfigurationError(f"HOLDFAST_IDEMPOTENCY__URL: what answers there is not Redis: {error}") from None
        except _FAULTS as error:
            raise _away(error) from None
        version = str(server.get("redis_version", "7"))
        major = int(version.partition(".")[0])
        self._complete, self._release = lua.COMPLETE.for_version(major), lua.RELEASE.for_version(major)
        return [*_version(version, major), *_eviction(memory), *await self._persistence(kept)]

    async def _info(self, section: str) -> dict[str, Any]:
        if isinstance(self._client, AsyncRedisCluster):
            await self._client.initialize()
            return dict(await self._client.info(section, target_nodes=self._client.get_primaries()[0]))
        return dict(await self._client.info(section))

    async def _persistence(self, kept: dict[str, Any]) -> list[Endangered]:
        if kept.get("aof_enabled"):
            return []
        try:
            saved = await self._client.config_get("save")
        except _FAULTS:
            return []  # many hosted servers allow no CONFIG
        if isinstance(saved, dict) and not any(saved.values()):
            told = "Redis keeps nothing on disk: a restart forgets every completed event; set `appendonly yes`"
            return [Endangered("redis-forgets", told)]
        return []

    async def _life_of(self, owner: bytes) -> float:
        left: int = await self._batches.ask((lua.LIFE, heartbeat_key(self._settings.prefix, owner), ()))
        return left / 1000

    async def _send(self, questions: Sequence[Question]) -> Sequence[Any]:
        """Ask in one pipeline. What a server did not know or could not serve yet is asked once more, by itself."""
        groups = list(_together(questions, self._most))
        replies = await self._pipeline([_command("EVALSHA", script.sha, asked) for script, asked in groups])
        again = [at for at, reply in enumerate(replies) if _is_worth_another_try(reply)]
        if again:  # sent in full, and the server keeps it
            retried = await self._pipeline([_command("EVAL", groups[at][0].source, groups[at][1]) for at in again])
            for at, reply in zip(again, retried, strict=True):
                replies[at] = reply
        found: list[Any] = [None] * len(questions)
        for (_, asked), reply in zip(groups, replies, strict=True):
            answers = [reply] * len(asked) if isinstance(reply, Exception) else reply
            for (place, _, _), answer in zip(asked, answers, strict=True):
                found[place] = _away(answer) if isinstance(answer, Exception) else answer
        return found

    async def _pipeline(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        try:
            async with asyncio.timeout(2 * self._settings.timeout):
                pipeline = self._client.pipeline(transaction=False)
                for command in commands:
                    pipeline.execute_command(*command)
                return list(await pipeline.execute(raise_on_error=False))
        except _FAULTS as error:  # OSError: TimeoutError is one
            return [error] * len(commands)


class RedisHeart:
    """Where a worker shows that it is alive. It blocks, and so has a connection and a thread of its own."""

    def __init__(self, url: str, settings: IdempotencySettings) -> None:
        self._server = _Server.of(url, settings)
        self._prefix = settings.prefix
        self._client: Redis | RedisCluster | None = None

    def beat(self, owner: bytes, seconds: float) -> bool:
        key, life = heartbeat_key(self._prefix, owner), round(seconds * 1000)
        return self._run("SET", key, "1", "PX", life, "GET", when_full=("EVAL", lua.BEAT, 1, key, life)) is not None

    def stop(self, owner: bytes) -> None:
        try:
            self._run("DEL", heartbeat_key(self._prefix, owner))
        finally:
            if self._client is not None:
                for client in (self._client, *_sentinels(self._client)):
                    client.close()
            self._client = None

    def _run(self, *command: str | int, when_full: tuple[str | int, ...] = ()) -> Any:
        try:
            if self._client is None:
                self._client = self._server.synchronous()
            try:
                return self._client.execute_command(*command)
            except faults.OutOfMemoryError:
                if not when_full:
                    raise
                return self._client.execute_command(*when_full)
        except _FAULTS as error:
            raise _away(error) from None


@dataclass(frozen=True, slots=True)
class _Server:
    """A URL taken apart. Clients retry once, and only where the connection was lost: a claim may be sent twice."""

    kind: str
    hosts: tuple[tuple[str, int], ...]
    service: str
    options: dict[str, Any]

    @classmethod
    def of(cls, url: str, settings: IdempotencySettings) -> "_Server":
        parts = urlsplit(url)
        scheme, _, kind = parts.scheme.partition("+")
        login, _, places = parts.netloc.rpartition("@")
        user, _, password = login.partition(":")
        default = 26379 if kind == "sentinel" else 6379
        named = [urlsplit(f"//{place}") for place in places.split(",")]
        service, _, database = parts.path.strip("/").rpartition("/") if kind == "sentinel" else ("", "", parts.path)
        if kind == "sentinel" and not service:
            service, database = database, "0"
        options: dict[str, Any] = {
            "username": unquote(user) or None,
            "password": secret_of(settings.password, settings.password_file) or unquote(password) or None,
            "socket_timeout": settings.timeout,
            "socket_connect_timeout": settings.timeout,
            "protocol": 2,
        }
        if kind != "cluster":
            options["db"] = int(database.strip("/") or 0)
        if scheme == "rediss":
            files = {
                "ssl_ca_certs": settings.ca_file,
                "ssl_certfile": settings.cert_file,
                "ssl_keyfile": settings.key_file,
            }
            options |= {name: str(path) for name, path in files.items() if path is not None}
            options["ssl"] = True
            if not settings.verify:
                options |= {"ssl_cert_reqs": "none", "ssl_check_hostname": False}
        return cls(
            kind, tuple((place.hostname or "localhost", place.port or default) for place in named), service, options
        )

    def asynchronous(self) -> "AsyncRedis | AsyncRedisCluster":
        retry, quiet = AsyncRetry(NoBackoff(), 1, (faults.ConnectionError,)), _quiet()
        if self.kind == "cluster":
            nodes = [AsyncClusterNode(host, port) for host, port in self.hosts]
            return AsyncRedisCluster(startup_nodes=nodes, retry=retry, maint_notifications_config=quiet, **self.options)
        options = {**self.options, "retry": retry, "maint_notifications_config": quiet}
        if self.kind == "sentinel":
            watchers = AsyncSentinel(self.hosts, sentinel_kwargs=self._for_sentinels())
            return watchers.master_for(self.service, **options)
        (host, port), *_ = self.hosts
        return AsyncRedis(host=host, port=port, **options)

    def synchronous(self) -> "Redis | RedisCluster":
        retry, quiet = Retry(NoBackoff(), 1, (faults.ConnectionError,)), _quiet()
        if self.kind == "cluster":
            nodes = [ClusterNode(host, port) for host, port in self.hosts]
            return RedisCluster(startup_nodes=nodes, retry=retry, maint_notifications_config=quiet, **self.options)
        options = {**self.options, "retry": retry, "maint_notifications_config": quiet}
        if self.kind == "sentinel":
            watchers = Sentinel(list(self.hosts), sentinel_kwargs=self._for_sentinels())
            return watchers.master_for(self.service, **options)
        (host, port), *_ = self.hosts
        return Redis(host=host, port=port, **options)

    def _for_sentinels(self) -> dict[str, Any]:
        """Sentinels have no databases, and logins of their own, which a URL cannot name."""
        return {name: value for name, value in self.options.items() if name not in ("db", "username", "password")}


def _sentinels(client: Any) -> list[Any]:
    """The connections through which a client asks who is master: it does not close them."""
    manager = getattr(getattr(client, "connection_pool", None), "sentinel_manager", None)
    return list(manager.sentinels) if manager is not None else []


def _quiet() -> MaintNotificationsConfig:
    return MaintNotificationsConfig(enabled=False)


def _answer(reply: int) -> Answer:
    match reply:
        case 0:
            return Acquired()
        case -1:
            return Done()
        case -2:
            return Mismatch()
        case crashes if crashes > 0:
            return Acquired(crashes)
        case _:
            return Suspect(_SUSPECT - reply)


def _together(questions: Sequence[Question], most: int) -> Iterator[tuple[lua.Script, list[Asked]]]:
    """The questions to one script in groups of at most `most`, each with its place among all. What is asked of one key
    stays in its order: a release must not overtake the claim it ends."""
    open_groups: dict[lua.Script, list[Asked]] = {}
    asked_of: dict[str, lua.Script] = {}
    for place, (script, key, arguments) in enumerate(questions):
        if asked_of.setdefault(key, script) is not script:
            yield from open_groups.items()
            open_groups, asked_of = {}, {key: script}
        group = open_groups.setdefault(script, [])
        group.append((place, key, arguments))
        if len(group) == most:
            yield script, open_groups.pop(script)
    yield from open_groups.items()


def _command(name: str, script: str, asked: list[Asked]) -> tuple[Any, ...]:
    keys = [key for _, key, _ in asked]
    arguments = [argument for _, _, its in asked for argument in its]
    return name, script, len(keys), *keys, len(asked[0][2]), *arguments


def _is_worth_another_try(reply: Any) -> bool:
    """A server that restarted knows no script; one that was demoted, loads or moves a slot is soon another."""
    return isinstance(
        reply,
        faults.NoScriptError | faults.ReadOnlyError | faults.BusyLoadingError | faults.TryAgainError
        | faults.ClusterDownError | faults.ConnectionError,
    )  # fmt: skip


def _away(error: Exception) -> StoreUnavailable:
    told = str(error) or type(error).__name__
    if isinstance(error, TimeoutError | faults.TimeoutError):
        told = "Redis did not answer in time"
    elif isinstance(error, faults.OutOfMemoryError):
        told = "Redis is out of memory (maxmemory)"
    elif isinstance(error, faults.NoPermissionError) or any(words in told for words in _REFUSED_IN_A_SCRIPT):
        told = (
            f"Redis refused this user: {told}; it needs +eval +evalsha +get +set +del +pttl on the keys of the prefix"
        )
    elif (fault := _of_tls(error)) is not None:
        told = fault
    elif type(error) is faults.ConnectionError and "connecting to" in told:
        told = f"no connection to Redis: {told.rstrip('.')}; HOLDFAST_IDEMPOTENCY__URL says where it is"
    return StoreUnavailable(told)


def _of_tls(error: Exception) -> str | None:
    """What TLS refused, and where: redis-py keeps the place in its text, and the error behind it."""
    cause = error.__cause__ or error.__context__
    if not isinstance(cause, ssl.SSLError) or (fault := explain_tls(cause, "IDEMPOTENCY")) is None:
        return None
    place = _PLACE.search(str(error))
    return f"no connection to Redis{f' at {place[1]}' if place else ''}: {fault}"


def _version(version: str, major: int) -> list[Endangered]:
    if major >= 7:
        return []
    told = f"Redis {version} is older than 7: out of memory, it refuses completions as well, and events repeat"
    return [Endangered("redis-old", told)]


def _eviction(memory: dict[str, Any]) -> list[Endangered]:
    policy = str(memory.get("maxmemory_policy", "noeviction"))
    if policy == "noeviction":
        return []
    told = f"maxmemory-policy is {policy}: Redis may evict claims, and events repeat; set it to noeviction"
    return [Endangered("redis-evicts", told)]
