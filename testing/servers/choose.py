"""Which server the tests and the demo use: the first way that serves."""

import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from .node import Given, Node, Server, ServersUnavailable
from .postgres import find_postgres, private_postgres
from .process import SEARCH_PATH, is_root, program
from .rabbitmq import find_rabbitmq, private_rabbitmq
from .redis import find_redis, private_redis

RABBITMQ_URL = "HOLDFAST_TEST_RABBITMQ_URL"
REDIS_URL = "HOLDFAST_TEST_REDIS_URL"
POSTGRES_URL = "HOLDFAST_TEST_POSTGRES_URL"


class Way(Enum):
    """How a node of our own can come about."""

    DOCKER = "a container"
    LOCAL = "the program on this machine"
    APT = "the same, after apt-get install"


@dataclass(frozen=True, slots=True)
class Machine:
    """What is known of this machine before anything is started."""

    docker: bool
    rabbitmq: bool
    redis: bool
    apt: bool
    postgres: bool = False


def this_machine(environment: Mapping[str, str]) -> Machine:
    """Look: does Docker answer, what is installed, may we install."""
    return Machine(
        docker=_docker_answers(environment),
        rabbitmq=find_rabbitmq() is not None,
        redis=find_redis() is not None,
        apt=is_root() and program("apt-get") is not None,
        postgres=find_postgres() is not None,
    )


def ways(machine: Machine, *, installed: bool) -> list[Way]:
    """The ways worth trying, best first."""
    possible = {Way.DOCKER: machine.docker, Way.LOCAL: installed, Way.APT: machine.apt and not installed}
    return [way for way, is_possible in possible.items() if is_possible]


@contextmanager
def rabbitmq_server(environment: Mapping[str, str] | None = None, machine: Machine | None = None) -> Iterator[Server]:
    """The RabbitMQ named by `HOLDFAST_TEST_RABBITMQ_URL`, or else `rabbitmq_node`."""
    with _named_or_node(RABBITMQ_URL, rabbitmq_node, environment, machine) as server:
        yield server


@contextmanager
def redis_server(environment: Mapping[str, str] | None = None, machine: Machine | None = None) -> Iterator[Server]:
    """The Redis named by `HOLDFAST_TEST_REDIS_URL`, or else `redis_node`."""
    with _named_or_node(REDIS_URL, redis_node, environment, machine) as server:
        yield server


@contextmanager
def postgres_server(environment: Mapping[str, str] | None = None, machine: Machine | None = None) -> Iterator[Server]:
    """The PostgreSQL named by `HOLDFAST_TEST_POSTGRES_URL`, or else `postgres_node`."""
    with _named_or_node(POSTGRES_URL, postgres_node, environment, machine) as server:
        yield server


@contextmanager
def rabbitmq_node(environment: Mapping[str, str] | None = None, machine: Machine | None = None) -> Iterator[Node]:
    """A RabbitMQ of our own, running, to be stopped, killed and frozen at will.

    Raises `ServersUnavailable` where there is no way to one.
    """
    seen = machine or this_machine(_environment(environment))
    chosen = ways(seen, installed=seen.rabbitmq)
    with _first_that_serves("RabbitMQ", RABBITMQ_URL, "rabbitmq-server", chosen, private_rabbitmq) as node:
        yield node


@contextmanager
def redis_node(environment: Mapping[str, str] | None = None, machine: Machine | None = None) -> Iterator[Node]:
    """A Redis of our own, running, to be stopped, killed and frozen at will.

    Raises `ServersUnavailable` where there is no way to one.
    """
    seen = machine or this_machine(_environment(environment))
    chosen = ways(seen, installed=seen.redis)
    with _first_that_serves("Redis", REDIS_URL, "redis-server", chosen, private_redis) as node:
        yield node


@contextmanager
def postgres_node(environment: Mapping[str, str] | None = None, machine: Machine | None = None) -> Iterator[Node]:
    """A PostgreSQL of our own, running, to be stopped, killed and frozen at will.

    Raises `ServersUnavailable` where there is no way to one.
    """
    seen = machine or this_machine(_environment(environment))
    chosen = ways(seen, installed=seen.postgres)
    with _first_that_serves("PostgreSQL", POSTGRES_URL, "postgresql", chosen, private_postgres) as node:
        yield node


@contextmanager
def _named_or_node(
    variable: str,
    node: Callable[[Mapping[str, str] | None, Machine | None], AbstractContextManager[Node]],
    environment: Mapping[str, str] | None,
    machine: Machine | None,
) -> Iterator[Server]:
    if url := _environment(environment).get(variable):
        yield Given(url)
        return
    with node(environment, machine) as ours:
        yield ours


@contextmanager
def _first_that_serves(
    name: str, variable: str, package: str, chosen: list[Way], local: Callable[[], AbstractContextManager[Node]]
) -> Iterator[Node]:
    failures: list[str] = []
    with ExitStack() as stack:
        for way in chosen:
            try:
                node = stack.enter_context(_made(way, name, package, local))
            except ServersUnavailable as failure:
                failures.append(f"{way.value}: {failure}")
                continue
            yield node
            return
    needed = (
        f"{name} is needed and none was found: install it (on Debian or Ubuntu: apt-get install {package}), "
        f"start Docker, or set {variable}."
    )
    raise ServersUnavailable("\n".join([needed, *(f"Tried {failure}" for failure in failures)]))


def _made(
    way: Way, name: str, package: str, local: Callable[[], AbstractContextManager[Node]]
) -> AbstractContextManager[Node]:
    if way is Way.DOCKER:
        from . import docker

        makers = {"RabbitMQ": docker.rabbitmq_container, "Redis": docker.redis_container}
        return makers.get(name, docker.postgres_container)()
    if way is Way.APT:
        print(f"{package} is not installed: running apt-get install {package}", file=sys.stderr, flush=True)
        install(package)
    return local()


def _docker_answers(environment: Mapping[str, str]) -> bool:
    if importlib.util.find_spec("testcontainers") is None:
        return False
    from .docker import answers

    return answers(environment)


def _environment(given: Mapping[str, str] | None) -> Mapping[str, str]:
    if given is not None:
        return given
    from ...config import environment

    return environment()


# dpkg asks this script before it starts a service; 101 means no.
_POLICY = Path("/usr/sbin/policy-rc.d")


def install(package: str) -> None:
    """`apt-get install` one package, without starting the service it brings.

    Raises `ServersUnavailable` if apt-get fails.
    """
    with _no_services_started():
        _apt_get("update")
        _apt_get("install", "-y", "--no-install-recommends", package)


def _apt_get(*arguments: str) -> None:
    command = ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=120", *arguments]
    environment = {"PATH": SEARCH_PATH, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        last = (ended.stderr or ended.stdout).strip().splitlines()[-1:] or ["no reason given"]
        raise ServersUnavailable(f"{' '.join(command)} failed: {last[0]}")


@contextmanager
def _no_services_started() -> Iterator[None]:
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink(missing_ok=True)
