"""Failures are reported alike with the extras and without them, as the plain installation is."""

import json
from pathlib import Path

import pytest
from apps import copy_app
from commands import environment, holdfast

EXTRAS = (
    "uvloop",
    "watchfiles",
    "jinja2",
    "opentelemetry",
    "pytest",
    "sqlalchemy",
    "asyncpg",
    "psycopg",
    "asyncmy",
    "django",
)
HIDING = f"import sys\nsys.modules.update(dict.fromkeys({EXTRAS}))\n"
"""What Python runs first: from then on these cannot be imported, as if they were not installed."""


def failure(folder: Path, *, extras: bool) -> dict[str, str]:
    """The log line of an event that was dead-lettered."""
    copy_app("failing", folder)
    (folder / "sitecustomize.py").write_text("" if extras else HIDING)
    variables = environment(
        HOLDFAST_BROKER__URL="memory://failing", HOLDFAST_LOG__FORMAT="json", PYTHONPATH=str(folder)
    )
    done = holdfast("run", "app:worker", folder=folder, env=variables)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    [line] = [line for line in lines if line["event"] == "delivery.settled"]
    return {name: line[name] for name in ("outcome", "reason", "error", "error_type", "exception")}


@pytest.mark.parametrize("extras", [True, False], ids=["with extras", "without extras"])
def test_a_failure_has_the_traceback_of_the_handler_alone(tmp_path: Path, extras: bool) -> None:
    line = failure(tmp_path, extras=extras)

    assert (line["outcome"], line["reason"]) == ("dead_lettered", "exhausted")
    assert (line["error"], line["error_type"]) == ("the card was declined", "ValueError")
    assert line["exception"].count("Traceback (most recent call last)") == 1
    assert "ModuleNotFoundError" not in line["exception"]


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        ("dashboard", "dashboard"),
        ("run app:worker --reload", "reload"),
        ("sql schema", "sql"),
        ("sql check", "sql"),
        ("outbox show", "sql"),
        ("sagas list fulfilment", "sql"),
        ("relay", "sql"),
        ("journal status", "sql"),
    ],
)
def test_a_command_that_lacks_its_extra_names_it_in_one_line(command: str, extra: str, tmp_path: Path) -> None:
    copy_app("failing", tmp_path)
    (tmp_path / "sitecustomize.py").write_text(HIDING)
    variables = environment(
        HOLDFAST_BROKER__URL="memory://failing", HOLDFAST_SQL__URL="sqlite:///x.db", PYTHONPATH=str(tmp_path)
    )

    done = holdfast(*command.split(), folder=tmp_path, env=variables)

    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert f"holdfast-rabbitmq[{extra}]" in done.stderr
