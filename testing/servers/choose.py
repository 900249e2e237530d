"""Which server the tests and the demo use: the first way that serves."""

import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from enum import Enum

from .apt import install
from .node import Given, Node, Server, ServersUnavailable
from .process import is_root, program
from .rabbitmq import find_rabbitmq, private_rabbitmq
from .redis import find_redis, private_redis

RABBITMQ_URL = "HOLDFAST_TEST_RABBITMQ_URL"
REDIS_URL = "HOLDFAST_TEST_REDIS_URL"


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


def this_machine(environment: Mapping[str, str]) -> Machine:
    """Look: does Docker answer, what is installed, may we install."""
    return Machine(
        docker=_docker_answers(environment),
        rabbitmq=find_rabbitmq() is not None,
        redis=find_redis() is not None,
        apt=is_root() and program("apt-get") is not None,
    )


def ways(machine: Machine, *, installed: bool) -> list[Way]:
    """The ways worth trying, best first."""
    possible = {Way.DOCKER: machine.docker, Way.LOCAL: installed, Way.APT: machine.apt and not installed}
    return [way for way, is_possible in possible.items() if is_possible]


@contextmanager
def rabbitmq_server(environment: Mapping[str, str] | None = None, machine: Machine | None = None) -> Iterator[Server]:
    """The RabbitMQ named by `HOLDFAST_TEST_RABBITMQ_URL`, or else `rabbitmq_node`."""
    named = _environment(environment).get(RABBITMQ_URL)
    if named:
        yield Given(named)
        return
    with rabbitmq_node(environment, machine) as node:
        yield node


@contextmanager
def redis_server(environment: Mapping[str, str] | None = None, machine: Machine | None = None) -> Iterator[Server]:
    """The Redis named by `HOLDFAST_TEST_REDIS_URL`, or else `redis_node`."""
    named = _environment(environment).get(REDIS_URL)
    if named:
        yield Given(named)
        return
    with redis_node(environment, machine) as node:
        yield node


@contextmanager
def rabbitmq_node(environment: Mapping[str, str] | None = None, machine: Machine | None = None) -> Iterator[Node]:
    """A RabbitMQ of our own, running, to be stopped, killed and frozen at will.

    Raises `ServersUnavailable` where there is no way to one.
    """
    seen = machine or this_machine(_environment(environment))
    makers: dict[Way, Callable[[], AbstractContextManager[Node]]] = {
        Way.DOCKER: _rabbitmq_container,
        Way.LOCAL: private_rabbitmq,
        Way.APT: lambda: _after_install("rabbitmq-server", private_rabbitmq),
    }
    chosen = [(way, makers[way]) for way in ways(seen, installed=seen.rabbitmq)]
    with _first_that_serves("RabbitMQ", RABBITMQ_URL, "rabbitmq-server", chosen) as node:
        yield node


@contextmanager
def redis_node(environment: Mapping[str, str] | None = None, machine: Machine | None = None) -> Iterator[Node]:
    """A Redis of our own, running, to be stopped, killed and frozen at will.

    Raises `ServersUnavailable` where there is no way to one.
    """
    seen = machine or this_machine(_environment(environment))
    makers: dict[Way, Callable[[], AbstractContextManager[Node]]] = {
        Way.DOCKER: _redis_container,
        Way.LOCAL: private_redis,
        Way.APT: lambda: _after_install("redis-server", private_redis),
    }
    chosen = [(way, makers[way]) for way in ways(seen, installed=seen.redis)]
    with _first_that_serves("Redis", REDIS_URL, "redis-server", chosen) as node:
        yield node


@contextmanager
def _first_that_serves(
    name: str, variable: str, package: str, chosen: list[tuple[Way, Callable[[], AbstractContextManager[Node]]]]
) -> Iterator[Node]:
    failures: list[str] = []
    with ExitStack() as stack:
        for way, make in chosen:
            try:
                node = stack.enter_context(make())
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


def _after_install(package: str, make: Callable[[], AbstractContextManager[Node]]) -> AbstractContextManager[Node]:
    print(f"{package} is not installed: running apt-get install {package}", file=sys.stderr, flush=True)
    install(package)
    return make()


def _docker_answers(environment: Mapping[str, str]) -> bool:
    if importlib.util.find_spec("testcontainers") is None:
        return False
    from .docker import answers

    return answers(environment)


def _rabbitmq_container() -> AbstractContextManager[Node]:
    from .docker import rabbitmq_container

    return rabbitmq_container()


def _redis_container() -> AbstractContextManager[Node]:
    from .docker import redis_container

    return redis_container()


def _environment(given: Mapping[str, str] | None) -> Mapping[str, str]:
    if given is not None:
        return given
    from ...config import environment

    return environment()
