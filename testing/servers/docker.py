"""The servers in containers, through testcontainers. Imported only where that is installed."""

import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import docker
from docker.errors import DockerException
from docker.models.containers import Container
from testcontainers.core.container import DockerContainer

from .node import ServersUnavailable
from .postgres import speaks_postgres
from .process import free_port, until_it_answers
from .rabbitmq import speaks_amqp
from .redis import speaks_redis

RABBITMQ_IMAGE = "rabbitmq:4"
REDIS_IMAGE = "redis:8"
POSTGRES_IMAGE = "postgres:17"


def answers(environment: Mapping[str, str]) -> bool:
    """Whether a Docker engine answers at `DOCKER_HOST`, or at the usual socket."""
    host = environment.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    # Asked first by hand: the client leaves a socket open when nobody listens.
    if host.startswith("unix://") and not _listens(host.removeprefix("unix://")):
        return False
    try:
        client = docker.from_env(timeout=5, environment=dict(environment))
        try:
            return bool(client.ping())
        finally:
            client.close()
    except (DockerException, OSError):
        return False


def _listens(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(5)
        return probe.connect_ex(path) == 0


class ContainerNode:
    """A server in a container of our own; its published port is fixed, so it stays the same across restarts."""

    def __init__(self, container: Container, url: str, tool: str, ready: Callable[[], None]) -> None:
        self._container = container
        self._url = url
        self._tool = tool
        self._ready = ready

    @property
    def url(self) -> str:
        return self._url

    @property
    def running(self) -> bool:
        self._container.reload()
        return bool(self._container.status in ("running", "paused"))

    def start(self) -> None:
        if not self.running:
            self._container.start()
            self._ready()

    def stop(self) -> None:
        self.resume()
        self._container.stop(timeout=30)

    def kill(self) -> None:
        self._container.kill()
        self._container.wait()

    def pause(self) -> None:
        self._container.pause()

    def resume(self) -> None:
        self._container.reload()
        if self._container.status == "paused":
            self._container.unpause()

    def ctl(self, *arguments: str) -> str:
        ended = self._container.exec_run([*self._tool.split(), *arguments])
        said = bytes(ended.output or b"").decode(errors="replace")
        if ended.exit_code != 0:
            raise ServersUnavailable(
                f"{self._tool} {' '.join(arguments)} failed with {ended.exit_code}: {said.strip()}"
            )
        return said


@contextmanager
def rabbitmq_container(image: str = RABBITMQ_IMAGE) -> Iterator[ContainerNode]:
    """RabbitMQ in a container; raises `ServersUnavailable` if the image cannot be had or does not serve."""
    with _container(image, 5672, "amqp://guest:guest@{}:{}/", "rabbitmqctl --quiet", speaks_amqp) as node:
        yield node


@contextmanager
def redis_container(image: str = REDIS_IMAGE) -> Iterator[ContainerNode]:
    """Redis in a container; raises `ServersUnavailable` if the image cannot be had or does not serve."""
    with _container(image, 6379, "redis://{}:{}/0", "redis-cli", speaks_redis) as node:
        yield node


@contextmanager
def postgres_container(image: str = POSTGRES_IMAGE) -> Iterator[ContainerNode]:
    """PostgreSQL in a container; raises `ServersUnavailable` if the image cannot be had or does not serve."""
    url, tool = "postgresql://postgres@{}:{}/postgres", "psql -U postgres -AtXqc"
    with _container(image, 5432, url, tool, speaks_postgres, POSTGRES_HOST_AUTH_METHOD="trust") as node:
        yield node


@contextmanager
def _container(
    image: str, inner_port: int, url: str, tool: str, asks: Callable[[socket.socket], bool], **environment: str
) -> Iterator[ContainerNode]:
    port = free_port()
    container = DockerContainer(image, env=environment).with_bind_ports(inner_port, port)
    try:
        container.start()
    except (DockerException, OSError, RuntimeError) as error:
        raise ServersUnavailable(f"Docker did not start {image}: {error}") from error
    try:
        engine = container.get_wrapped_container()
        host = container.get_container_host_ip()

        def alive() -> bool:
            engine.reload()
            return bool(engine.status in ("created", "running"))

        def last_words() -> str:
            return bytes(engine.logs(tail=20)).decode(errors="replace")

        def ready() -> None:
            until_it_answers(asks, (host, port), 120, alive, last_words)

        ready()
        yield ContainerNode(engine, url.format(host, port), tool, ready)
    finally:
        container.stop()
