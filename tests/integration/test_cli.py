"""The command line: every command and flag, and how its errors read."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from apps import copy_app
from commands import Running, environment, holdfast
from running import depth

from holdfast import Settings
from holdfast.config import known_variables


@pytest.fixture
def folder(tmp_path: Path, unique: str) -> Path:
    copy_app("greeter", tmp_path, NAME=unique)
    return tmp_path


@pytest.fixture
def env(settings: Settings) -> dict[str, str]:
    return environment(
        HOLDFAST_BROKER__URL=settings.broker.url.get_secret_value(),
        HOLDFAST_BROKER__EXCHANGE=settings.broker.exchange,
        HOLDFAST_BROKER__MAX_DELAY="3600",
        HOLDFAST_IDEMPOTENCY__URL="memory://",
    )


def attached(log: str) -> bool:
    return log.count("consumer.attached") >= 2


def test_run_handles_what_publish_sends_and_drains_on_sigterm(folder: Path, env: dict[str, str], unique: str) -> None:
    with Running("run", "app:worker", folder=folder, env=env) as worker:
        worker.until(attached)
        published = holdfast(
            "publish", f"{unique}.greeted", '{"name": "Ada"}', "--header", "a=b", folder=folder, env=env
        )
        worker.until(lambda log: "GREETING Ada" in log and "SHOUT Ada" in log)
        code = worker.stop()

    assert (published.returncode, published.stderr) == (0, "")
    event_id = published.stdout.strip()
    settled = [json.loads(line) for line in worker.log.splitlines() if '"delivery.settled"' in line]
    assert [(line["event_id"], line["outcome"]) for line in settled] == [(event_id, "handled")] * 2
    assert code == 0


def test_run_only_runs_the_named_handlers_at_the_given_concurrency(folder: Path, env: dict[str, str]) -> None:
    with Running("run", "app:worker", "--only", "shout", "--concurrency", "3", folder=folder, env=env) as worker:
        worker.until(lambda log: "consumer.attached" in log)
        code = worker.stop()

    [started] = [json.loads(line) for line in worker.log.splitlines() if '"worker.started"' in line]
    assert (started["queues"].endswith(".shout"), started["concurrency"], code) == (True, 3, 0)


def test_reload_starts_the_worker_again_when_its_code_changes(folder: Path, env: dict[str, str], unique: str) -> None:
    with Running("run", "app:worker", "--reload", folder=folder, env=env) as worker:
        worker.until(attached)
        copy_app("greeter", folder, NAME=unique, GREETING="WELCOME")
        worker.until(lambda log: log.count("consumer.attached") >= 4 and "worker.stopped" in log)
        holdfast("publish", f"{unique}.greeted", '{"name": "Ada"}', folder=folder, env=env)
        worker.until(lambda log: "WELCOME Ada" in log)
        code = worker.stop()

    assert "app.py changed, starting again" in worker.log
    assert code == 0


async def test_publish_reads_lines_names_the_bad_ones_and_publishes_the_rest(
    folder: Path, env: dict[str, str], settings: Settings, unique: str
) -> None:
    with Running("run", "app:worker", "--only", "shout", folder=folder, env=env) as worker:
        worker.until(lambda log: "consumer.attached" in log)
        worker.stop()
    lines = "\n".join(["not json", "", *(f'{{"name": "n{n}"}}' for n in range(2500)), "{"])

    done = holdfast("publish", f"{unique}.greeted", "-", folder=folder, env=env, stdin=lines)

    assert (done.returncode, done.stdout) == (1, "2500 published, 2 not\n")
    assert [re.sub(r": not JSON.*", "", line) for line in done.stderr.splitlines()] == [
        "holdfast: line 1", "holdfast: line 2503",
    ]  # fmt: skip
    assert await depth(settings, f"{unique}.shout") == 2500


def test_publish_with_a_delay_comes_later(folder: Path, env: dict[str, str], unique: str) -> None:
    with Running("run", "app:worker", folder=folder, env=env) as worker:
        worker.until(attached)
        done = holdfast("publish", f"{unique}.greeted", '{"name": "Ada"}', "--delay", "0.3", folder=folder, env=env)
        worker.until(lambda log: "GREETING Ada" in log)

    assert done.returncode == 0


def test_check_shows_settings_handlers_and_topology_without_a_server(folder: Path, unique: str) -> None:
    env = environment(HOLDFAST_BROKER__URL="amqp://user:canary@nowhere.invalid/", HOLDFAST_BROKER_URL="x")

    done = holdfast("check", "app:worker", folder=folder, env=env)

    assert done.returncode == 0
    assert f"{unique}.greet" in done.stdout and "in a thread" in done.stdout and "5 attempts" in done.stdout
    assert "canary" not in done.stdout + done.stderr
    assert "HOLDFAST_BROKER_URL is not a setting; did you mean HOLDFAST_BROKER__URL?" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (("run", "app"), "'app' is not MODULE:WORKER"),
        (("run", "nowhere:worker"), "there is no module 'nowhere'"),
        (("run", "./app.py:worker"), "'./app.py' is a file, not a module; write app:worker"),
        (("run", "app:number"), "app:number is a int, not a holdfast.Worker"),
        (("run", "app:nobody"), "module 'app' has no 'nobody'; it has app:worker"),
        (("run", "app:Greeted"), "app:Greeted is the class Greeted, not a holdfast.Worker; it has app:worker"),
        (("run", "app:nothing"), "has no handlers"),
        (("run", "app:worker", "--only", "nobody"), "has no handler 'nobody'; it has greet, shout"),
        (("check", "app:nothing"), "has no handlers"),
        (
            ("check", "broken:worker"),
            "importing 'broken' failed: ZeroDivisionError: division by zero ({folder}/broken.py:2)",
        ),
        (
            ("check", "typo:worker"),
            "importing 'typo' failed: SyntaxError: invalid syntax (typo.py, line 2) ({folder}/typo.py:2)",
        ),
        (("check", "leaves:worker"), "importing 'leaves' failed: SystemExit: 3 ({folder}/leaves.py:2)"),
        (("check", "needs:worker"), "importing 'needs' failed: ModuleNotFoundError: No module named 'nonsense'"),
        (("check", "twice:worker"), "takes no event"),
        (("check", "bare:worker"), "ConfigurationError: worker 'w': write @worker.handler(SomeEvent)"),
        (("check", "never:worker"), "give a whole number from 1 ({folder}/never.py:2)"),
        (("check", "spaced:worker"), "at most 150 long ({folder}/spaced.py:2)"),
        (
            ("publish", "x.y", "not json"),
            "not JSON: expected ident at line 1 column 2; for the shell, put it in single",
        ),
        (("publish", "x.y", "{}", "--header", "novalue"), "--header 'novalue' is not NAME=VALUE"),
        (("publish", "x.y", "{}"), "; run the worker that listens to it once, or fix the type"),
        (("publish", "x.y", "{}", "--delay", "-1"), "delay=-1.0"),
        (("publish", "x.y", "[1, NaN]"), "not JSON"),
        (("publish", "", "{}"), "'' is no event type"),
        (("publish", "x" * 256, "{}"), "is no event type"),
    ],
)
def test_an_error_is_one_line_on_stderr_and_exit_1(
    folder: Path, env: dict[str, str], arguments: tuple[str, ...], fault: str
) -> None:
    (folder / "broken.py").write_text("import json\n1 / 0\n")
    (folder / "typo.py").write_text("import json\n1 +\n")
    (folder / "leaves.py").write_text("import sys\nsys.exit(3)\n")
    (folder / "needs.py").write_text("import nonsense\n")
    (folder / "bare.py").write_text(
        "from holdfast import Worker\nworker = Worker('w')\n@worker.handler\ndef f(event): ...\n"
    )
    (folder / "never.py").write_text("from holdfast import Retry\nRetry(attempts=0)\n")
    (folder / "spaced.py").write_text("from holdfast import Event\nclass A(Event, type='a b'): ...\n")
    (folder / "twice.py").write_text(
        "from holdfast import Worker\nworker = Worker('w')\n@worker.handler()\ndef f(event): ...\n"
    )

    done = holdfast(*arguments, folder=folder, env=env)

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    [line] = done.stderr.splitlines()
    assert line.startswith("holdfast: ") and fault.format(folder=folder) in line


@pytest.mark.parametrize(
    ("variables", "fault"),
    [
        ({"HOLDFAST_WORKER__CONCURRENCY": "many"}, "HOLDFAST_WORKER__CONCURRENCY: should be a valid integer"),
        ({"HOLDFAST_BROKER__URL": "amqp://guest:wrong@{host}/"}, "login refused"),
        ({"HOLDFAST_BROKER__URL": "amqp://guest:guest@{host}/nowhere"}, "virtual host does not exist"),
        (
            {"HOLDFAST_IDEMPOTENCY__URL": "redis://:canary@{host}/0"},
            "HOLDFAST_IDEMPOTENCY__URL: what answers there is not",
        ),
        ({"HOLDFAST_BROKER__TOPOLOGY": "verify", "HOLDFAST_BROKER__EXCHANGE": "missing"}, "no exchange 'missing'"),
    ],
)
def test_a_worker_that_cannot_run_says_why_in_one_line(
    folder: Path, env: dict[str, str], settings: Settings, variables: dict[str, str], fault: str
) -> None:
    host = settings.broker.url.get_secret_value().split("@")[1].partition("/")[0]
    wrong = (
        env | {name: value.format(host=host) for name, value in variables.items()} | {"HOLDFAST_LOG__LEVEL": "CRITICAL"}
    )

    done = holdfast("run", "app:worker", folder=folder, env=wrong)

    [line] = done.stderr.splitlines()
    assert (done.returncode, fault in line) == (1, True), line


def test_a_worker_without_redis_says_what_it_waits_for(folder: Path, env: dict[str, str]) -> None:
    with Running(
        "run", "app:worker", folder=folder, env=env | {"HOLDFAST_IDEMPOTENCY__URL": "redis://127.0.0.1:1/0"}
    ) as worker:
        worker.until(lambda log: log.count("queue.paused") == 2)
        code = worker.stop()

    paused = next(json.loads(line) for line in worker.log.splitlines() if '"queue.paused"' in line)
    assert "no connection to Redis: Error 111 connecting to 127.0.0.1:1." in paused["error"]
    assert "HOLDFAST_IDEMPOTENCY__URL says where it is" in paused["error"]
    assert code == 0


def test_publish_says_at_once_that_it_waits_for_the_broker_and_then_that_it_gave_up(
    folder: Path, env: dict[str, str]
) -> None:
    away = env | {
        "HOLDFAST_BROKER__URL": "amqp://guest:canary@127.0.0.1:1/",
        "HOLDFAST_BROKER__CONNECT_TIMEOUT": "0.5",
        "HOLDFAST_BROKER__PUBLISH_TIMEOUT": "0.5",
    }

    done = holdfast("publish", "x.y", "{}", folder=folder, env=away)

    waiting, failed = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (1, "")
    assert waiting.endswith("yet (connection refused: is RabbitMQ running there?); trying for up to 1 s")
    assert failed == (
        "holdfast: not sent to 'x.y' on exchange 'EXCHANGE': no connection to amqp://127.0.0.1:1/ within 0.5 s "
        "(connection refused: is RabbitMQ running there?)"
    ).replace("EXCHANGE", env["HOLDFAST_BROKER__EXCHANGE"])


def test_publish_refuses_a_broker_that_nobody_else_can_be_on(folder: Path, env: dict[str, str]) -> None:
    done = holdfast("publish", "x.y", "{}", folder=folder, env=env | {"HOLDFAST_BROKER__URL": "memory://"})

    [line] = done.stderr.splitlines()
    assert (done.returncode, "a broker inside one process" in line) == (1, True)


def test_version_and_help_answer(folder: Path) -> None:
    version, overview = (holdfast(flag, folder=folder, env=environment()) for flag in ("--version", "--help"))
    pages = [holdfast(name, "--help", folder=folder, env=environment()) for name in ("run", "check", "publish", "demo")]

    assert re.fullmatch(r"holdfast \S+\n", version.stdout)
    assert all(name in overview.stdout for name in ("run", "check", "publish", "demo"))
    assert all(page.returncode == 0 and "Example" in page.stdout for page in pages)


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (("run",), "Missing argument 'MODULE:WORKER'. (see holdfast run --help)"),
        (("run", "app:worker", "--concurrency", "0"), "--concurrency"),
        (("publish", "x.y", "{}", "--nonsense"), "No such option: --nonsense"),
        (("nonsense",), "No such command 'nonsense'"),
    ],
)
def test_wrong_usage_is_one_line_on_stderr_and_exit_2(folder: Path, arguments: tuple[str, ...], fault: str) -> None:
    done = holdfast(*arguments, folder=folder, env=environment())

    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("holdfast: ") and fault in line


def test_without_a_command_it_explains_itself(folder: Path) -> None:
    done = holdfast(folder=folder, env=environment())

    assert (done.returncode, done.stderr) == (0, "")
    assert "Examples:" in done.stdout


def test_ctrl_c_in_the_terminal_drains_a_reloading_worker_once(folder: Path, env: dict[str, str], unique: str) -> None:
    with Running("run", "app:worker", "--reload", folder=folder, env=env, own_group=True) as worker:
        worker.until(attached)
        holdfast("publish", f"{unique}.slow", '{"name": "Ada"}', folder=folder, env=env)
        worker.until(lambda log: "BEGAN Ada" in log)
        os.killpg(worker.process.pid, signal.SIGINT)
        worker.until(lambda log: "worker.draining" in log)
        (folder / "go").touch()
        code = worker.process.wait(60)

    assert "ENDED Ada" in worker.log
    assert code == 0


def test_a_second_ctrl_c_ends_a_reloading_worker_at_once(folder: Path, env: dict[str, str], unique: str) -> None:
    with Running("run", "app:worker", "--reload", folder=folder, env=env, own_group=True) as worker:
        worker.until(attached)
        holdfast("publish", f"{unique}.slow", '{"name": "Ada"}', folder=folder, env=env)
        worker.until(lambda log: "BEGAN Ada" in log)
        os.killpg(worker.process.pid, signal.SIGINT)
        worker.until(lambda log: "worker.draining" in log)
        os.killpg(worker.process.pid, signal.SIGINT)
        code = worker.process.wait(60)

    assert "given_back" in worker.log and "ENDED" not in worker.log
    assert code == 1


def test_a_worker_that_does_not_load_is_started_again_once_it_is_mended(folder: Path, env: dict[str, str]) -> None:
    text = (folder / "app.py").read_text()
    (folder / "app.py").write_text(text + "\nbroken(\n")
    with Running("run", "app:worker", "--reload", folder=folder, env=env) as worker:
        worker.until(lambda log: "importing 'app' failed" in log)
        (folder / "app.py").write_text(text)
        worker.until(attached)
        code = worker.stop()

    assert code == 0


def test_a_lifespan_that_fails_is_a_log_line_and_exit_1(folder: Path, env: dict[str, str]) -> None:
    copy_app("without_database", folder)

    done = holdfast("run", "app:worker", folder=folder, env=env)

    [_, line] = done.stderr.splitlines()  # the first names the port of the probes
    assert done.returncode == 1
    assert json.loads(line)["event"] == "worker.failed" and "OSError: no database" in json.loads(line)["exception"]


def test_a_stuck_thread_of_the_handlers_own_does_not_keep_the_process(
    folder: Path, env: dict[str, str], unique: str
) -> None:
    copy_app("stuck_thread", folder, NAME=unique)

    with Running("run", "app:worker", folder=folder, env=env | {"HOLDFAST_WORKER__GRACE": "0"}) as worker:
        worker.until(lambda log: "consumer.attached" in log)
        holdfast("publish", f"{unique}.stuck", "{}", folder=folder, env=env)
        worker.until(lambda log: "BEGAN" in log)
        code = worker.stop()

    assert "given_back" in worker.log
    assert code == 0


def test_run_warns_of_a_variable_that_nothing_reads(folder: Path, env: dict[str, str]) -> None:
    with Running("run", "app:worker", folder=folder, env=env | {"HOLDFAST_BROKER_URL": "x"}) as worker:
        worker.until(attached)
        worker.stop()

    [line] = [json.loads(line) for line in worker.log.splitlines() if '"setting.unknown"' in line]
    assert "did you mean HOLDFAST_BROKER__URL?" in line["setting"]


def test_what_a_slow_producer_writes_is_published_as_it_comes(folder: Path, env: dict[str, str], unique: str) -> None:
    with Running("run", "app:worker", folder=folder, env=env) as worker:
        worker.until(attached)
        with publishing(f"{unique}.greeted", folder=folder, env=env) as (publisher, _):
            for name in ("Ada", "Grace"):
                publisher.stdin.write(f'{{"name": "{name}"}}\n'.encode())
                publisher.stdin.flush()
                worker.until(lambda log, name=name: f"GREETING {name}" in log)
            output, _ = publisher.communicate(timeout=60)

    assert (publisher.returncode, output) == (0, b"2 published\n")


def test_a_progress_bar_appears_on_a_terminal_when_it_takes_long(
    folder: Path, env: dict[str, str], unique: str
) -> None:
    with Running("run", "app:worker", folder=folder, env=env) as worker:
        worker.until(attached)
        with publishing(f"{unique}.greeted", folder=folder, env=env | {"TERM": "xterm"}) as (publisher, terminal):
            publisher.stdin.write(b'{"name": "Ada"}\nnot json\n')
            publisher.stdin.flush()
            shown = b""
            while b"1 published" not in shown:
                shown += os.read(terminal, 65536)
            publisher.communicate(timeout=60)

    assert b"holdfast: line 2: not JSON" in shown
    assert publisher.returncode == 1


def test_lines_that_are_no_text_or_too_long_are_named_and_the_rest_is_published(
    folder: Path, env: dict[str, str], unique: str
) -> None:
    with Running("run", "app:worker", folder=folder, env=env) as worker:
        worker.until(attached)
        worker.stop()
    lines = [
        b'\xef\xbb\xbf{"name": "first"}',
        b"\xff\xfe",
        b'{"name": "' + b"x" * 3_000_000 + b'"}',
        b'{"name": "last"}',
    ]

    done = subprocess.run(
        [sys.executable, "-m", "holdfast", "publish", f"{unique}.greeted", "-"],
        cwd=folder, env=env, input=b"\n".join(lines), capture_output=True, timeout=60, check=False,
    )  # fmt: skip

    assert (done.returncode, done.stdout) == (1, b"2 published, 2 not\n")
    assert [line.split(b":")[1] for line in done.stderr.splitlines()] == [b" line 2", b" line 3"]


def test_headers_of_the_command_line_are_those_on_the_wire(folder: Path, env: dict[str, str], unique: str) -> None:
    with Running("run", "app:worker", folder=folder, env=env) as worker:
        worker.until(attached)
        given = ("--header", "event-id=mine", "--header", "causation-id=theirs", "--header", "tenant=blue")
        done = holdfast("publish", f"{unique}.greeted", '{"name": "Ada"}', *given, folder=folder, env=env)
        worker.until(lambda log: log.count("delivery.settled") == 2)
        worker.stop()

    [settled, _] = [json.loads(line) for line in worker.log.splitlines() if '"delivery.settled"' in line]
    assert done.stdout == "mine\n"
    assert (settled["event_id"], settled["causation_id"], settled["correlation_id"]) == ("mine", "theirs", "mine")


def test_check_says_what_the_topology_will_be(folder: Path, unique: str) -> None:
    env = environment(HOLDFAST_BROKER__QUEUE_TYPE="classic")
    done = holdfast("check", "app:worker", "--all", folder=folder, env=env)

    assert f"queue {unique}.greet (classic), bound for {unique}.greeted" in done.stdout
    assert f"queue {unique}.greet.dead for its dead letters" in done.stdout
    assert "HOLDFAST_BROKER__URL = amqp://***@localhost:5672/" in done.stdout
    assert "delay ladder of 20 levels" in done.stdout


def test_check_shows_the_settings_that_differ_and_counts_those_that_do_not(folder: Path) -> None:
    env = environment(HOLDFAST_BROKER__URL="amqp://user:canary@nowhere.invalid/", HOLDFAST_WORKER__GRACE="30")

    done, every = (holdfast("check", "app:worker", *flag, folder=folder, env=env) for flag in ((), ("--all",)))

    shown, whole = ([line for line in run.stdout.splitlines() if " = " in line] for run in (done, every))
    assert shown == [
        "HOLDFAST_BROKER__URL = amqp://***@nowhere.invalid/  (environment)",
        "HOLDFAST_WORKER__GRACE = 30.0  (environment)",
        "HOLDFAST_WORKER__BLOCK_LIMIT = 60.0  (environment)",
        "HOLDFAST_HTTP__PORT = 0  (environment)",
    ]
    assert len(whole) == len(known_variables()) and set(shown) < set(whole)
    assert f"\n{len(whole) - 4} other settings have their defaults (--all prints them)\n" in done.stdout


def test_run_leaves_the_logging_of_the_application_alone_where_it_is_asked_to(
    folder: Path, env: dict[str, str]
) -> None:
    app = folder / "app.py"
    app.write_text(f"import logging\n\nlogging.basicConfig(format='MINE %(message)s', level='INFO')\n{app.read_text()}")
    lines: list[list[str]] = []

    for form in ("none", "json"):
        with Running("run", "app:worker", folder=folder, env=env | {"HOLDFAST_LOG__FORMAT": form}) as worker:
            worker.until(attached)
            worker.stop()
        lines.append([line for line in worker.log.splitlines() if "worker.started" in line])

    [[mine], [ours]] = lines
    assert mine.startswith("MINE event='worker.started' ")
    assert json.loads(ours)["event"] == "worker.started"


def test_on_windows_one_line_says_where_it_runs_instead(folder: Path) -> None:
    program = "import sys; from holdfast.cli.app import main; sys.platform = 'win32'; main()"

    done = subprocess.run(
        [sys.executable, "-c", program, "run", "app:worker"], cwd=folder, capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "holdfast: Holdfast runs on Linux and macOS; on Windows, run it in WSL or in a container\n"


def test_a_shell_is_given_the_names_of_the_commands(folder: Path) -> None:
    asked = {"_HOLDFAST_COMPLETE": "complete_bash", "COMP_WORDS": "holdfast d", "COMP_CWORD": "1"}

    done = holdfast(folder=folder, env=environment() | asked)

    assert done.stdout.split() == ["doctor", "demo", "dashboard", "dead"]


@contextmanager
def publishing(
    event_type: str, *, folder: Path, env: dict[str, str]
) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    """`holdfast publish TYPE -` with a pipe to write to, and the terminal its standard error is."""
    terminal, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "holdfast", "publish", event_type, "-"],
        cwd=folder, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=theirs,
    )  # fmt: skip
    try:
        yield process, terminal
    finally:
        process.kill()
        process.communicate()
        os.close(theirs)
        os.close(terminal)
