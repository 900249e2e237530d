import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from apps import APPS
from releases import FOLDER, rabbitmq_node

from holdfast.testing.servers import (
    POSTGRES_URL,
    RABBITMQ_URL,
    REDIS_URL,
    Given,
    Machine,
    Node,
    PrivateRabbitMQ,
    PrivateRedis,
    RabbitMQPrograms,
    Server,
    ServersUnavailable,
    Way,
    postgres_server,
    private_redis,
    rabbitmq_server,
    redis_server,
    ways,
)

Chooser = Callable[[Mapping[str, str], Machine], AbstractContextManager[Server]]

NOTHING = Machine(docker=False, rabbitmq=False, redis=False, apt=False)
EVERYTHING = Machine(docker=True, rabbitmq=True, redis=True, apt=True)


def answers(url: str) -> bool:
    parts = urlsplit(url)
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=1):
            return True
    except OSError:
        return False


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def until_readable(descriptor: int) -> bool:
    """Wait for the descriptor of a process to say that it ended."""
    readable, _, _ = select.select([descriptor], [], [], 30)
    return bool(readable)


@pytest.fixture
def redis() -> Iterator[PrivateRedis]:
    with private_redis() as server:
        yield server


def test_a_named_server_is_taken_as_it_is() -> None:
    environment = {RABBITMQ_URL: "amqp://broker.example/", REDIS_URL: "redis://cache.example/3"}

    with rabbitmq_server(environment, NOTHING) as rabbitmq, redis_server(environment, NOTHING) as redis:
        assert rabbitmq == Given("amqp://broker.example/")
        assert redis == Given("redis://cache.example/3")


def test_docker_comes_before_the_programs_on_this_machine() -> None:
    assert ways(EVERYTHING, installed=True) == [Way.DOCKER, Way.LOCAL]


def test_what_is_not_installed_is_installed_where_that_is_allowed() -> None:
    assert ways(Machine(docker=False, rabbitmq=False, redis=True, apt=True), installed=False) == [Way.APT]


def test_what_is_installed_is_not_installed_again() -> None:
    assert ways(Machine(docker=False, rabbitmq=True, redis=True, apt=True), installed=True) == [Way.LOCAL]


@pytest.mark.parametrize(
    ("server", "package", "variable"),
    [
        (rabbitmq_server, "rabbitmq-server", RABBITMQ_URL),
        (redis_server, "redis-server", REDIS_URL),
        (postgres_server, "postgresql", POSTGRES_URL),
    ],
)
def test_where_there_is_no_way_one_line_says_what_to_install(server: Chooser, package: str, variable: str) -> None:
    with pytest.raises(ServersUnavailable) as failure, server({}, NOTHING):
        pass

    line = str(failure.value)
    assert "\n" not in line
    assert f"apt-get install {package}" in line
    assert variable in line


def test_a_named_folder_is_the_only_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path))

    with pytest.raises(ServersUnavailable, match=f"^there is no RabbitMQ in {tmp_path} "), rabbitmq_node():
        pass


def test_an_empty_variable_names_no_server() -> None:
    with pytest.raises(ServersUnavailable), redis_server({REDIS_URL: ""}, NOTHING):
        pass


def test_the_broker_of_the_session_answers(rabbitmq_url: str) -> None:
    assert answers(rabbitmq_url)


def test_a_node_that_was_killed_starts_again_at_the_same_address_with_its_data(rabbitmq_node: Node) -> None:
    url = rabbitmq_node.url
    rabbitmq_node.ctl("add_vhost", "kept")

    rabbitmq_node.kill()
    assert not answers(url)
    rabbitmq_node.start()

    assert answers(url)
    assert rabbitmq_node.url == url
    assert "kept" in rabbitmq_node.ctl("list_vhosts")
    rabbitmq_node.ctl("delete_vhost", "kept")


def test_a_node_that_was_stopped_is_down_until_it_is_started(rabbitmq_node: Node) -> None:
    rabbitmq_node.stop()
    assert not rabbitmq_node.running
    assert not answers(rabbitmq_node.url)

    rabbitmq_node.start()

    assert rabbitmq_node.running
    assert answers(rabbitmq_node.url)


def test_the_modules_of_rabbitmq_and_erlang_are_found_beside_their_programs(tmp_path: Path) -> None:
    for file in ("home/sbin/rabbitmq-server", "home/plugins/rabbit-4/ebin/rabbit.beam", "erts-13/bin/epmd",
                 "lib/stdlib-4/ebin/sets.beam"):  # fmt: skip
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).touch()
    (tmp_path / "server").symlink_to("home/sbin/rabbitmq-server")
    (tmp_path / "epmd").symlink_to("erts-13/bin/epmd")

    programs = RabbitMQPrograms(tmp_path / "server", tmp_path / "epmd")

    assert [module.name for module in programs.modules()] == ["rabbit.beam", "sets.beam"]
    (tmp_path / "home/plugins/rabbit-4/ebin/rabbit.beam").rename(tmp_path / "rabbit.ez")
    assert programs.modules() == []


def test_a_node_looks_for_its_modules_in_one_folder_first(rabbitmq_node: Node) -> None:
    linked = rabbitmq_node.data / "linked" if isinstance(rabbitmq_node, PrivateRabbitMQ) else None
    is_linked = linked is not None and linked.exists()

    assert ("linked/modules/ebin" in rabbitmq_node.ctl("eval", "hd(code:get_path()).")) is is_linked


def test_every_stable_feature_of_the_broker_is_enabled(rabbitmq_node: Node) -> None:
    flags = rabbitmq_node.ctl("list_feature_flags", "name", "state", "stability").splitlines()[1:]

    off = [flag for flag in flags if "disabled" in flag and "experimental" not in flag]

    assert off == []


def test_what_the_tool_complains_of_is_in_the_error(rabbitmq_node: Node) -> None:
    with pytest.raises(ServersUnavailable, match="no_such_command"):
        rabbitmq_node.ctl("no_such_command")


def test_a_killed_redis_keeps_what_was_written(redis: PrivateRedis) -> None:
    redis.ctl("set", "claim", "held")

    redis.kill()
    redis.start()

    assert redis.ctl("get", "claim").strip() == "held"


def test_a_killed_postgres_keeps_what_was_committed(postgres_node: Node) -> None:
    postgres_node.ctl("create table kept (number integer)", "insert into kept values (7)")

    postgres_node.kill()
    assert not answers(postgres_node.url)
    postgres_node.start()

    assert postgres_node.ctl("select number from kept", "drop table kept") == "7\n"


def test_a_paused_postgres_answers_once_resumed(postgres_node: Node) -> None:
    postgres_node.pause()
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(postgres_node.ctl, "select 7")
        answered, _ = wait([asking], timeout=0.5)
        postgres_node.resume()

    assert not answered
    assert asking.result() == "7\n"


def test_a_paused_redis_is_silent_and_answers_once_resumed(redis: PrivateRedis) -> None:
    parts = urlsplit(redis.url)
    redis.pause()
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=10) as connection:
        connection.sendall(b"PING\r\n")
        connection.setblocking(False)
        with pytest.raises(BlockingIOError):
            connection.recv(7)

        redis.resume()

        connection.settimeout(10)
        assert connection.recv(7) == b"+PONG\r\n"


def test_two_private_servers_do_not_meet(redis: PrivateRedis) -> None:
    with private_redis() as other:
        other.ctl("set", "mine", "1")

        assert redis.url != other.url
        assert redis.ctl("exists", "mine").strip() == "0"


def test_nothing_is_left_of_a_private_server() -> None:
    with private_redis() as server:
        pid, url, folder = server.pid, server.url, server.data
        assert pid is not None

    assert not alive(pid)
    assert not answers(url)
    assert not folder.exists()


def test_a_private_server_does_not_outlive_a_process_that_is_killed() -> None:
    child = subprocess.Popen(
        [sys.executable, str(APPS / "hold_redis.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    pid, url = child.stdout.readline().split()
    assert answers(url)
    gone = os.pidfd_open(int(pid))

    child.send_signal(signal.SIGKILL)
    child.communicate()

    assert until_readable(gone), "the server outlived the process that started it"
    os.close(gone)
    assert not answers(url)
