"""The heartbeat of a worker in Redis. It blocks, and so has a connection and a thread of its own."""

from typing import Any

from redis import exceptions as faults

from ...config import IdempotencySettings
from ..keys import heartbeat_key
from .clients import Client, Server, sentinels_of
from .errors import FAULTS, unavailable
from .lua import BEAT


class RedisHeart:
    """See `idempotency.Heart`."""

    def __init__(self, url: str, settings: IdempotencySettings) -> None:
        self._server = Server.of(url, settings)
        self._prefix = settings.prefix
        self._client: Client | None = None

    def beat(self, owner: bytes, seconds: float) -> bool:
        key, life = heartbeat_key(self._prefix, owner), round(seconds * 1000)
        return self._run("SET", key, "1", "PX", life, "GET", when_full=("EVAL", BEAT, 1, key, life)) is not None

    def stop(self, owner: bytes) -> None:
        try:
            self._run("DEL", heartbeat_key(self._prefix, owner))
        finally:
            self._close()

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
        except FAULTS as error:
            self._close()  # a server that was demoted keeps its connections, and its address may lead to another one
            raise unavailable(error) from None

    def _close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            for connected in (client, *sentinels_of(client)):
                connected.close()
