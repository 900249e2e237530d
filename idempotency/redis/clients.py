"""Clients of redis-py for a URL: one server, Sentinel or Cluster, with or without TLS."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import unquote, urlsplit

import hiredis
from redis import Redis, RedisCluster, Sentinel
from redis import exceptions as faults
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio import RedisCluster as AsyncRedisCluster
from redis.asyncio import Sentinel as AsyncSentinel
from redis.asyncio.cluster import ClusterNode as AsyncClusterNode
from redis.asyncio.connection import Connection, SSLConnection
from redis.asyncio.retry import Retry as AsyncRetry
from redis.asyncio.sentinel import SentinelManagedConnection
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode
from redis.credentials import CredentialProvider
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from ...config import IdempotencySettings, secret_of
from ...events import ConfigurationError

AsyncClient: TypeAlias = "AsyncRedis | AsyncRedisCluster"
Client: TypeAlias = "Redis | RedisCluster"

_QUIET = MaintNotificationsConfig(enabled=False)
_LOGIN = ("username", "password", "credential_provider")


@dataclass(frozen=True, slots=True)
class Server:
    """A URL in its parts. Clients retry once, and only where the connection was lost: a claim may be sent twice."""

    kind: str
    hosts: tuple[tuple[str, int], ...]
    service: str
    options: dict[str, Any]
    for_sentinels: dict[str, Any]
    """The options of connections to Sentinels, which have no databases, and logins of their own."""
    timeout: float

    @property
    def answer_limit(self) -> float:
        """The seconds after which Redis counts as one that does not answer: twice `HOLDFAST_IDEMPOTENCY__TIMEOUT`,
        since a lost connection is made again; with Sentinels or a cluster twice more for each host of the URL, since
        the first may be down and the others are asked after it."""
        return 2 * self.timeout * (1 + len(self.hosts) * (self.kind != ""))

    @classmethod
    def of(cls, url: str, settings: IdempotencySettings) -> "Server":
        """Return the parts of a `redis://`, `rediss://`, `redis+sentinel://` or `redis+cluster://` URL."""
        parts = urlsplit(url)
        scheme, _, kind = parts.scheme.partition("+")
        userinfo, _, hosts = parts.netloc.rpartition("@")
        user, _, password = userinfo.partition(":")
        port = 26379 if kind == "sentinel" else 6379
        named = [urlsplit(f"//{host}") for host in hosts.split(",")]
        service, _, database = parts.path.strip("/").rpartition("/") if kind == "sentinel" else ("", "", parts.path)
        if kind == "sentinel" and not service:
            service, database = database, "0"
        given = secret_of(settings.password, settings.password_file) or unquote(password)
        login: dict[str, Any] = {"username": unquote(user) or None, "password": given or None}
        if settings.url_file is not None or settings.password_file is not None:
            login = {"credential_provider": FileCredentials(settings)}
        options: dict[str, Any] = {
            **login,
            "socket_timeout": settings.timeout,
            "socket_connect_timeout": settings.timeout,
            "protocol": 2,
        }
        if scheme == "rediss":
            options |= _tls(settings)
        others = {name: value for name, value in options.items() if name not in _LOGIN}
        for_sentinels = others | _sentinel_login(settings)
        if kind != "cluster":
            options["db"] = int(database.strip("/") or 0)
        addresses = tuple((host.hostname or "localhost", host.port or port) for host in named)
        return cls(kind, addresses, service, options, for_sentinels, settings.timeout)

    def asynchronous(self) -> AsyncClient:
        """Return a client for the loop. It connects when it is first used."""
        options = self._options(AsyncRetry(NoBackoff(), 1, (faults.ConnectionError,)))
        if self.kind == "cluster":
            nodes = [AsyncClusterNode(host, port) for host, port in self.hosts]
            return self._through_ours(AsyncRedisCluster(startup_nodes=nodes, **options))
        if self.kind == "sentinel":
            once = {
                **self.for_sentinels,
                "retry": AsyncRetry(NoBackoff(), 0),
                "maint_notifications_config": _QUIET,
            }  # then the next one is asked
            sentinels = AsyncSentinel(self.hosts, sentinel_kwargs=once)
            for sentinel in sentinels.sentinels:
                self._through_ours(sentinel)
            return self._through_ours(sentinels.master_for(self.service, **options))
        (host, port), *_ = self.hosts
        return self._through_ours(AsyncRedis(host=host, port=port, **options))

    def _through_ours(self, client: Any) -> Any:
        """Have a client for the loop make connections of the classes below."""
        ours: type[_Connection] = _TlsConnection if self.options.get("ssl") else _Connection
        if isinstance(client, AsyncRedisCluster):
            client.connection_kwargs["connection_class"] = ours
            for node in client.nodes_manager.startup_nodes.values():
                node.connection_class = ours
            return client
        pool = client.connection_pool
        if issubclass(pool.connection_class, SentinelManagedConnection):
            ours = _TlsConnectionToMaster if ours is _TlsConnection else _ConnectionToMaster
        pool.connection_class = ours
        return client

    def synchronous(self) -> Client:
        """Return a client that blocks. It connects when it is first used; that of a cluster, at once."""
        options = self._options(Retry(NoBackoff(), 1, (faults.ConnectionError,)))
        if self.kind == "cluster":
            return RedisCluster(startup_nodes=[ClusterNode(host, port) for host, port in self.hosts], **options)
        if self.kind == "sentinel":
            once = {**self.for_sentinels, "retry": Retry(NoBackoff(), 0), "maint_notifications_config": _QUIET}
            sentinels = Sentinel(list(self.hosts), sentinel_kwargs=once)
            return sentinels.master_for(self.service, **options)
        (host, port), *_ = self.hosts
        return Redis(host=host, port=port, **options)

    def _options(self, retry: Any) -> dict[str, Any]:
        return {**self.options, "retry": retry, "maint_notifications_config": _QUIET}


class FileCredentials(CredentialProvider):
    """User and password as files hold them now: redis-py asks with each connection."""

    def __init__(self, settings: IdempotencySettings) -> None:
        self._settings = settings

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """Return a password, or a user and a password; nothing where there is neither, which is no login. Raises
        `ConnectionError` where a file cannot be read."""
        try:
            settings = self._settings.current()
        except ConfigurationError as error:
            raise faults.ConnectionError(str(error)) from None
        url = settings.url.get_secret_value() if settings.url is not None else ""
        user, _, password = urlsplit(url).netloc.rpartition("@")[0].partition(":")
        password = secret_of(settings.password, settings.password_file) or unquote(password)
        if user:
            return unquote(user), password
        return (password,) if password else ()  # type: ignore[return-value]


class SentinelCredentials(CredentialProvider):
    """The login at Sentinels, with the password that its file holds now."""

    def __init__(self, user: str | None, file: Path) -> None:
        self._user = user
        self._file = file

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """Return a password, or a user and a password. Raises `ConnectionError` where the file cannot be read."""
        try:
            password = secret_of(None, self._file) or ""
        except (OSError, ValueError) as error:
            raise faults.ConnectionError(f"HOLDFAST_IDEMPOTENCY__SENTINEL_PASSWORD_FILE: {error}") from None
        return (self._user, password) if self._user else (password,)


class _Connection(Connection):
    """A connection that writes scripts and their arguments with hiredis, nine times as fast: a batch has hundreds."""

    def pack_command(self, *arguments: Any) -> list[bytes]:
        if arguments[0] in ("EVALSHA", "EVAL"):
            return [hiredis.pack_command(arguments)]
        packed: list[bytes] = super().pack_command(*arguments)
        return packed


class _TlsConnection(SSLConnection, _Connection):
    """The same with TLS. Its certificates are those that its files hold when it connects: redis-py reads them once."""

    async def disconnect(self, *arguments: Any, **options: Any) -> None:
        self.ssl_context.context = None
        await super().disconnect(*arguments, **options)


class _ConnectionToMaster(SentinelManagedConnection, _Connection):
    """A connection to the master that the Sentinels name."""


class _TlsConnectionToMaster(SentinelManagedConnection, _TlsConnection):
    """The same with TLS."""


def _sentinel_login(settings: IdempotencySettings) -> dict[str, Any]:
    if (file := settings.sentinel_password_file) is not None:
        return {"credential_provider": SentinelCredentials(settings.sentinel_username, file)}
    return {"username": settings.sentinel_username, "password": secret_of(settings.sentinel_password, None)}


def sentinels_of(client: Any) -> list[Any]:
    """Return the connections through which a client asks for the master: it does not close them."""
    manager = getattr(getattr(client, "connection_pool", None), "sentinel_manager", None)
    return list(manager.sentinels) if manager is not None else []


def _tls(settings: IdempotencySettings) -> dict[str, Any]:
    files = {"ssl_ca_certs": settings.ca_file, "ssl_certfile": settings.cert_file, "ssl_keyfile": settings.key_file}
    options: dict[str, Any] = {name: str(path) for name, path in files.items() if path is not None}
    unverified = {} if settings.verify else {"ssl_cert_reqs": "none", "ssl_check_hostname": False}
    return options | {"ssl": True} | unverified
