"""The modules that a command loads. Tests start commands hundreds of times, and people wait for each start."""

import subprocess
import sys
from pathlib import Path

import pytest
from apps import copy_app
from commands import environment

START = """import sys
from holdfast.cli.app import main
try: main()
finally: print(*sys.modules, file=sys.stderr)
"""
LIBRARIES = {
    *(
        "aiormq",
        "aiosqlite",
        "asyncio",
        "asyncmy",
        "asyncpg",
        "django",
        "jinja2",
        "opentelemetry",
        "pamqp",
        "prometheus_client",
        "pydantic",
        "pydantic_settings",
    ),
    *("psycopg", "redis", "rich", "sqlalchemy", "sqlite3", "starlette", "structlog", "uvicorn", "watchfiles"),
}
"""What takes its time to load."""

NAMES = {
    *("holdfast", "holdfast.cli", "holdfast.cli.app", "holdfast.cli.arguments", "holdfast.cli.databases"),
    *(
        "holdfast.cli.dead",
        "holdfast.cli.dead.commands",
        "holdfast.cli.dead.options",
        "holdfast.cli.journal",
        "holdfast.cli.journal.commands",
        "holdfast.cli.saga_commands",
        "holdfast.cli.subcommands",
        "holdfast.config",
        "holdfast.config.version",
    ),
}
"""The modules that name the commands and their flags."""

WORKER = {"asyncio", "pydantic", "pydantic_settings", "rich", "structlog"}


def loaded(folder: Path, *arguments: str) -> set[str]:
    """The modules that a command has loaded by its end."""
    ended = subprocess.run(
        [sys.executable, "-c", START, *arguments],
        cwd=folder, env=environment(HOLDFAST_BROKER__URL="memory://"), capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    return set(ended.stderr.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("arguments", "libraries"),
    [
        (["--version"], set()),
        (["--help"], set()),
        (["run", "--help"], {"pydantic"}),  # with which newer releases of Typer read the arguments of a command
        (["dead", "replay", "--help"], {"pydantic"}),
        (["events", "--help"], {"pydantic"}),
    ],
)
def test_version_and_help_load_the_names_of_the_commands_alone(
    tmp_path: Path, arguments: list[str], libraries: set[str]
) -> None:
    modules = loaded(tmp_path, *arguments)

    assert {name for name in modules if name.partition(".")[0] == "holdfast"} == NAMES
    assert modules & LIBRARIES <= libraries


@pytest.mark.parametrize(
    ("arguments", "libraries"),
    [
        (["check", "app:worker"], WORKER),
        (["topology", "show", "app:worker"], WORKER),
        (["events", "show", "app:worker"], WORKER),
        (["dead", "list"], WORKER | {"sqlite3"}),
        (["publish", "greeted", "{}"], WORKER),
        (["run", "--only", "nobody", "app:worker"], WORKER | {"uvloop"}),
    ],
)
def test_a_command_loads_the_libraries_it_needs_and_no_other(
    tmp_path: Path, arguments: list[str], libraries: set[str]
) -> None:
    copy_app("greeter", tmp_path)

    modules = loaded(tmp_path, *arguments)

    assert modules & LIBRARIES <= libraries


def test_a_module_of_event_classes_loads_no_broker_and_no_worker() -> None:
    program = "import sys; from holdfast import Event; print(*sys.modules)"

    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)

    folders = {name.split(".")[1] for name in ended.stdout.split() if name.startswith("holdfast.")}
    assert folders == {"events"}
