"""The command line: every command and flag, and how its errors read."""

import json
import re
from pathlib import Path

import pytest
from commands import Running, environment, holdfast
from running import depth

from holdfast import Settings

APP = """
from holdfast import Context, Event, Worker

class Greeted(Event, type="{exchange}.greeted"):
    name: str

worker = Worker("{exchange}")
other = Worker("{exchange}.other")
nothing = Worker("{exchange}.nothing")

@worker.handler(Greeted)
async def greet(event: Greeted, ctx: Context) -> None:
    print("GREETING", event.name, flush=True)

@worker.handler(Greeted)
def shout(event: Greeted) -> None:
    print("SHOUT", event.name, flush=True)
"""


@pytest.fixture
def folder(tmp_path: Path, unique: str) -> Path:
    (tmp_path / "app.py").write_text(APP.format(exchange=unique))
    return tmp_path


@pytest.fixture
def env(settings: Settings) -> dict[str, str]:
    return environment(
        HOLDFAST_BROKER__URL=settings.broker.url.get_secret_value(),
        HOLDFAST_BROKER__EXCHANGE=settings.broker.exchange,
        HOLDFAST_BROKER__MAX_DELAY="3600",
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
        (folder / "app.py").write_text(APP.format(exchange=unique).replace("GREETING", "WELCOME"))
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
        (("run", "app:nobody"), "module 'app' has no 'nobody'; it has app:worker"),
        (("run", "app:Greeted"), "app:Greeted is a ModelMetaclass, not a holdfast.Worker"),
        (("run", "app:nothing"), "has no handlers"),
        (("run", "app:worker", "--only", "nobody"), "has no handler 'nobody'; it has greet, shout"),
        (("check", "app:nothing"), "has no handlers"),
        (("check", "broken:worker"), "importing 'broken' failed: ZeroDivisionError: division by zero"),
        (("check", "needs:worker"), "importing 'needs' failed: ModuleNotFoundError: No module named 'nonsense'"),
        (("check", "twice:worker"), "takes no event"),
        (("publish", "x.y", "not json"), "not JSON"),
        (("publish", "x.y", "{}", "--header", "novalue"), "--header 'novalue' is not NAME=VALUE"),
        (("publish", "x.y", "{}"), "no queue is bound for 'x.y'"),
        (("publish", "x.y", "{}", "--delay", "-1"), "delay=-1.0"),
    ],
)
def test_an_error_is_one_line_on_stderr_and_exit_1(
    folder: Path, env: dict[str, str], arguments: tuple[str, ...], fault: str
) -> None:
    (folder / "broken.py").write_text("1 / 0\n")
    (folder / "needs.py").write_text("import nonsense\n")
    (folder / "twice.py").write_text(
        "from holdfast import Worker\nworker = Worker('w')\n@worker.handler()\ndef f(event): ...\n"
    )

    done = holdfast(*arguments, folder=folder, env=env)

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    [line] = done.stderr.splitlines()
    assert line.startswith("holdfast: ") and fault in line


@pytest.mark.parametrize(
    ("variables", "fault"),
    [
        ({"HOLDFAST_WORKER__CONCURRENCY": "many"}, "HOLDFAST_WORKER__CONCURRENCY: should be a valid integer"),
        ({"HOLDFAST_BROKER__URL": "amqp://guest:wrong@{host}/"}, "login refused"),
        ({"HOLDFAST_BROKER__URL": "amqp://guest:guest@{host}/nowhere"}, "virtual host does not exist"),
        ({"HOLDFAST_BROKER__TOPOLOGY": "verify", "HOLDFAST_BROKER__EXCHANGE": "missing"}, "no exchange 'missing'"),
    ],
)
def test_a_worker_that_cannot_run_says_why_in_one_line(
    folder: Path, env: dict[str, str], settings: Settings, variables: dict[str, str], fault: str
) -> None:
    host = settings.broker.url.get_secret_value().split("@")[1].strip("/")
    wrong = (
        env | {name: value.format(host=host) for name, value in variables.items()} | {"HOLDFAST_LOG__LEVEL": "CRITICAL"}
    )

    done = holdfast("run", "app:worker", folder=folder, env=wrong)

    [line] = done.stderr.splitlines()
    assert (done.returncode, fault in line) == (1, True), line


def test_version_and_help_answer(folder: Path) -> None:
    version, overview = (holdfast(flag, folder=folder, env=environment()) for flag in ("--version", "--help"))
    pages = [holdfast(name, "--help", folder=folder, env=environment()) for name in ("run", "check", "publish", "demo")]

    assert re.fullmatch(r"holdfast \S+\n", version.stdout)
    assert all(name in overview.stdout for name in ("run", "check", "publish", "demo"))
    assert all(page.returncode == 0 and "Example" in page.stdout for page in pages)
