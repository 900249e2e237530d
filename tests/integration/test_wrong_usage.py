"""What is wrong on the command line, in the folder of the tools or in a letter: one line, no traceback, and nothing in
it that a terminal obeys."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from apps import copy_app
from commands import environment, holdfast
from running import a_broker

from holdfast import Settings
from holdfast.broker import Topology, resting_queue
from holdfast.events import Message

OBEYED = "\x1b]0;owned\x07"


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """Needs no server."""
    return environment(
        HOLDFAST_BROKER__URL="amqp://127.0.0.1:1/", HOLDFAST_DEAD_LETTERS__FOLDER=str(tmp_path / "state")
    )


def one_line(done: "subprocess.CompletedProcess[str]") -> str:
    assert done.returncode in (1, 2) and len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


def test_a_journal_that_is_none_is_told_in_one_line(tmp_path: Path, env: dict[str, str]) -> None:
    holdfast("dead", "list", folder=tmp_path, env=env)
    [journal] = tmp_path.glob("state/*/journal.sqlite")
    journal.write_bytes(b"no database" * 100)

    told = one_line(holdfast("dead", "list", folder=tmp_path, env=env))

    assert "HOLDFAST_DEAD_LETTERS__FOLDER: file is not a database" in told


def test_a_folder_below_an_unknown_home_is_told_with_its_variable(tmp_path: Path, env: dict[str, str]) -> None:
    unknown = {"HOLDFAST_DEAD_LETTERS__FOLDER": "~nobody-of-this-name/state"}

    told = one_line(holdfast("dead", "list", folder=tmp_path, env=env | unknown))

    assert "HOLDFAST_DEAD_LETTERS__FOLDER=~nobody-of-this-name/state" in told


@pytest.mark.parametrize("part", ["/mydb", "?db=3", "/name/0"])
def test_what_a_url_cannot_mean_is_one_line_of_check_already(tmp_path: Path, env: dict[str, str], part: str) -> None:
    copy_app("one_queue", tmp_path)

    told = one_line(
        holdfast("check", "app:worker", folder=tmp_path, env=env | {"HOLDFAST_IDEMPOTENCY__URL": f"redis://h{part}"})
    )

    assert told.startswith("holdfast: HOLDFAST_IDEMPOTENCY__URL: ")


WRONG = {
    "nothing": {},
    "a scheme": {"HOLDFAST_BROKER__URL": "http://host"},
    "a number": {"HOLDFAST_WORKER__CONCURRENCY": "0"},
    "a file": {"HOLDFAST_BROKER__CA_FILE": "nowhere.pem"},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_checks_of_the_start_are_made_by_an_optimised_python_too(
    tmp_path: Path, env: dict[str, str], wrong: str
) -> None:
    copy_app("one_queue", tmp_path)
    env = env | WRONG[wrong]

    plain = holdfast("check", "app:worker", folder=tmp_path, env=env)
    optimised = holdfast("check", "app:worker", folder=tmp_path, env=env | {"PYTHONOPTIMIZE": "1"})

    assert (optimised.returncode, optimised.stdout, optimised.stderr) == (plain.returncode, plain.stdout, plain.stderr)
    assert plain.returncode == (1 if WRONG[wrong] else 0)


def test_the_demo_in_memory_runs_on_an_optimised_python(tmp_path: Path, env: dict[str, str]) -> None:
    done = holdfast("demo", "--memory", folder=tmp_path, env=env | {"PYTHONOPTIMIZE": "1"})

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("port", ["70000", "-1"])
def test_a_port_that_is_none_is_refused(tmp_path: Path, env: dict[str, str], port: str) -> None:
    beyond = {"HOLDFAST_DASHBOARD__HOST": "0.0.0.0"}  # without a token nothing is served there

    assert "--port" in one_line(holdfast("dashboard", "--port", port, folder=tmp_path, env=env | beyond))


def test_an_event_type_that_is_no_text_is_not_sent(tmp_path: Path) -> None:
    env = environment(
        HOLDFAST_BROKER__URL="amqp://127.0.0.1:1/",
        HOLDFAST_BROKER__CONNECT_TIMEOUT="0.1",
        HOLDFAST_BROKER__PUBLISH_TIMEOUT="0.1",
    )

    done = holdfast("publish", os.fsdecode(b"a\xff"), "{}", folder=tmp_path, env=env)

    assert done.returncode == 1 and "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [("topology", "diff"), ("topology", "apply"), ("check", "--connect")])
def test_a_broker_that_is_not_there_is_told_in_one_line(tmp_path: Path, command: tuple[str, ...]) -> None:
    copy_app("amounts", tmp_path)
    env = environment(HOLDFAST_BROKER__URL="amqp://127.0.0.1:1/", HOLDFAST_BROKER__CONNECT_TIMEOUT="1")

    assert "connection refused" in one_line(holdfast(*command, "app:worker", folder=tmp_path, env=env))


INSIDE = "HOLDFAST_BROKER__URL=memory:// is a broker inside one process, which no command reaches; name a RabbitMQ"
SHARED = (
    "publish order.paid {}", "dead list", "dead show reading", "dead operations", "dashboard", "doctor",
    "topology diff app:worker", "topology apply app:worker", "keys list app:worker handle", "relay",
    "journal record", "journal feed app:worker handle",
)  # fmt: skip


@pytest.mark.parametrize("command", SHARED)
def test_a_broker_in_memory_is_refused_by_each_command_that_needs_it(
    command: str, tmp_path: Path, env: dict[str, str]
) -> None:
    copy_app("one_queue", tmp_path)
    env |= {
        "HOLDFAST_BROKER__URL": "memory://",
        "HOLDFAST_BROKER__STREAM": "tape",
        "HOLDFAST_SQL__URL": f"sqlite:///{tmp_path / 'shop.db'}",
    }

    done = holdfast(*command.split(), folder=tmp_path, env=env)

    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"holdfast: {INSIDE}\n")


def test_leaving_a_question_does_nothing_and_says_so(tmp_path: Path, env: dict[str, str], settings: Settings) -> None:
    (tmp_path / "some.ndjson").touch()
    env["HOLDFAST_BROKER__URL"] = settings.broker.url.get_secret_value()
    command = [sys.executable, "-m", "holdfast", "dead", "import", "some.ndjson"]
    master, slave = pty.openpty()
    with subprocess.Popen(command, cwd=tmp_path, env=env, stdin=slave, stdout=slave, stderr=subprocess.PIPE) as asked:
        os.close(slave)
        screen = b""
        while b"[y/N]" not in screen:
            screen += os.read(master, 4096)
        os.write(master, b"\x04")
        _, told = asked.communicate(timeout=60)
    os.close(master)

    assert (asked.returncode, told.strip()) == (1, b"holdfast: nothing was done")


async def test_what_is_said_of_a_hostile_letter_is_not_obeyed_by_a_terminal(
    settings: Settings, tmp_path: Path, unique: str
) -> None:
    copy_app("amounts", tmp_path, QUEUE=unique)
    env = environment(
        HOLDFAST_BROKER__URL=settings.broker.url.get_secret_value(),
        HOLDFAST_IDEMPOTENCY__URL="memory://",
        HOLDFAST_DEAD_LETTERS__FOLDER=str(tmp_path / "state"),
    )
    async with a_broker(settings) as broker:
        await broker.declare(Topology(queues=(resting_queue(f"{unique}.dead"),)))
        for event_id, amount in (("reads", 1), ("does-not", "much")):
            body = json.dumps({"amounts": {OBEYED: amount}}).encode()
            headers = {"event-id": event_id}
            await broker.publish(Message(body, "", f"{unique}.dead", headers, type="odd.order"), timeout=30)

    edited = holdfast(
        "dead", "edit", unique, "does-not", "app:worker", "--header=a=b", "--yes", folder=tmp_path, env=env
    )
    checked = holdfast("dead", "check", unique, "app:worker", "--id=reads", "--run", folder=tmp_path, env=env)

    assert "amounts.\\x1b]0;owned\\x07" in one_line(edited)
    assert "no amount for \\x1b]0;owned\\x07" in checked.stdout
