"""What keeps a worker from starting: one line and exit 1, or, for what can come back, waiting with the truth told."""

import json
import re
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from apps import copy_app
from commands import Running, environment, holdfast
from rabbits import Rabbit
from redises import LOOPBACK, with_users

from holdfast.testing.servers import free_port


@pytest.fixture
def folder(tmp_path: Path, unique: str) -> Path:
    copy_app("one_queue", tmp_path, NAME=unique, TYPE=f"{unique}.event")
    return tmp_path


@pytest.fixture
def env(rabbit: Rabbit, unique: str) -> dict[str, str]:
    files = {f"HOLDFAST_BROKER__{name.upper()}": file for name, file in rabbit.files.items()}
    return environment(
        HOLDFAST_BROKER__URL=rabbit.url,
        HOLDFAST_BROKER__EXCHANGE=unique,
        HOLDFAST_BROKER__MAX_DELAY="60",
        HOLDFAST_IDEMPOTENCY__URL="memory://",
        HOLDFAST_LOG__LEVEL="ERROR",
        **files,
    )


@pytest.fixture
def stranger(rabbit: Rabbit, unique: str) -> Iterator[str]:
    """The URL of a user who may log in and do nothing."""
    rabbit.node.ctl("add_user", unique, "canary")
    yield rabbit.url.replace("guest:guest", f"{unique}:canary")
    rabbit.node.ctl("delete_user", unique)


def refused(folder: Path, env: dict[str, str]) -> str:
    """The one line of a worker that does not start."""
    done = holdfast("run", "app:worker", folder=folder, env=env)
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert done.returncode == 1 and "canary" not in lines[0]
    return lines[0]


def test_a_port_that_is_taken_is_named_with_the_variable(folder: Path, env: dict[str, str]) -> None:
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        port = taken.getsockname()[1]

        line = refused(folder, env | {"HOLDFAST_HTTP__PORT": str(port)})

    assert f"HOLDFAST_HTTP__PORT: port {port} of 127.0.0.1 is taken" in line


def test_a_user_without_the_virtual_host_or_without_a_right_learns_what_to_ask_for(
    folder: Path, env: dict[str, str], rabbit: Rabbit, stranger: str, unique: str
) -> None:
    env = env | {"HOLDFAST_BROKER__URL": stranger}

    outside = refused(folder, env)
    rabbit.node.ctl("set_permissions", unique, "^$", ".*", ".*")
    powerless = refused(folder, env)

    assert "or this user may not enter it" in outside
    assert "configure access to exchange" in powerless
    assert "grant the right, or use HOLDFAST_BROKER__TOPOLOGY=verify" in powerless


@pytest.mark.parametrize(
    ("variables", "fault"),
    [
        ({"HOLDFAST_BROKER__URL": "http://localhost"}, "HOLDFAST_BROKER__URL: the scheme 'http' is not one of amqp"),
        ({"HOLDFAST_BROKER__CA_FILE": "nowhere.pem"}, "HOLDFAST_BROKER__CA_FILE: "),
        ({"HOLDFAST_BROKER__CA_FILE": "app.py"}, "HOLDFAST_BROKER__CA_FILE: app.py: not in PEM form"),
    ],
)
def test_a_wrong_setting_is_one_line(folder: Path, env: dict[str, str], variables: dict[str, str], fault: str) -> None:
    assert fault in refused(folder, env | variables)


def test_a_redis_that_refuses_the_login_ends_it(folder: Path, env: dict[str, str], tmp_path: Path) -> None:
    with with_users(tmp_path) as (url, _):
        line = refused(folder, env | {"HOLDFAST_IDEMPOTENCY__URL": url.replace("shop@", "shop:canary@")})

    assert "HOLDFAST_IDEMPOTENCY__URL: Redis refused the login" in line


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("amqp://guest:canary@{host}:{port}/", "connection refused: is RabbitMQ running there?"),
        ("amqp://guest:canary@nowhere.invalid/", "the host's name leads nowhere"),
    ],
)
def test_a_broker_that_is_away_is_waited_for_live_but_not_ready(
    folder: Path, env: dict[str, str], url: str, told: str
) -> None:
    plain = {name: value for name, value in env.items() if not name.endswith("_FILE")}
    away = plain | {
        "HOLDFAST_BROKER__URL": url.format(host=LOOPBACK, port=free_port()), "HOLDFAST_LOG__LEVEL": "INFO",
    }  # fmt: skip

    with Running("run", "app:worker", folder=folder, env=away) as worker:
        worker.until(lambda log: "broker.disconnected" in log)
        [site] = re.findall(r'"url": "(http://[^"]+)"', worker.log)
        live, ready = answer(f"{site}/livez"), answer(f"{site}/readyz")
        code = worker.stop()

    lost = next(json.loads(line) for line in worker.log.splitlines() if '"broker.disconnected"' in line)
    assert told in lost["error"]
    assert (live, ready, code) == (200, 503, 0)
    assert "canary" not in worker.log


def answer(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=20) as page:
            return int(page.status)
    except urllib.error.HTTPError as error:
        return error.code
