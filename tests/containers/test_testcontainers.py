"""The Docker branch of holdfast.testing.servers; `make test-containers` sees to it that Docker answers."""

import os
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from holdfast.testing.servers import Machine, Node, rabbitmq_node, redis_node, this_machine

DOCKER_ALONE = Machine(docker=True, rabbitmq=False, redis=False, apt=False)


def answers(url: str, hello: bytes) -> bool:
    """Whether the server speaks: a published port accepts connections while nobody listens behind it."""
    parts = urlsplit(url)
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=2) as connection:
            connection.sendall(hello)
            return bool(connection.recv(1))
    except OSError:
        return False


AMQP = b"AMQP\x00\x00\x09\x01"
REDIS = b"PING\r\n"


@pytest.fixture(scope="module")
def rabbitmq() -> Iterator[Node]:
    with rabbitmq_node({}, DOCKER_ALONE) as node:
        yield node


@pytest.fixture(scope="module")
def redis() -> Iterator[Node]:
    with redis_node({}, DOCKER_ALONE) as node:
        yield node


def test_docker_is_seen() -> None:
    assert this_machine(os.environ).docker


def test_rabbitmq_in_a_container_answers(rabbitmq: Node) -> None:
    assert answers(rabbitmq.url, AMQP)


def test_rabbitmq_in_a_container_starts_again_at_the_same_address_with_its_data(rabbitmq: Node) -> None:
    url = rabbitmq.url
    rabbitmq.ctl("add_vhost", "kept")

    rabbitmq.kill()
    assert not rabbitmq.running
    assert not answers(url, AMQP)
    rabbitmq.start()

    assert answers(url, AMQP)
    assert "kept" in rabbitmq.ctl("list_vhosts")


def test_rabbitmq_in_a_container_can_be_stopped_in_order(rabbitmq: Node) -> None:
    rabbitmq.stop()
    assert not rabbitmq.running

    rabbitmq.start()

    assert answers(rabbitmq.url, AMQP)


def test_a_paused_container_is_silent_and_answers_once_resumed(redis: Node) -> None:
    redis.pause()
    assert not answers(redis.url, REDIS)

    redis.resume()

    assert answers(redis.url, REDIS)


def test_redis_in_a_container_runs_its_own_tool(redis: Node) -> None:
    redis.ctl("set", "claim", "held")

    assert redis.ctl("get", "claim").strip() == "held"
