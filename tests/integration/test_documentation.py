"""Every command and every sample in the README and the documentation is run, as a reader would run it."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pages import ROOT, Step, pages, steps
from running import a_broker

from holdfast import Settings
from holdfast.broker import Binding, Exchange, Queue, Topology
from holdfast.config import known_variables

INSTALLS = {"pip install holdfast"}


@pytest.fixture
def reader(settings: Settings, tmp_path: Path) -> dict[str, str]:
    """A reader's environment: the broker, a fresh folder, `holdfast` and `python` on the path."""
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOLDFAST_BROKER__URL": settings.broker.url.get_secret_value(),
        "HOLDFAST_BROKER__EXCHANGE": settings.broker.exchange,
        "HOLDFAST_BROKER__MAX_DELAY": "3600",
        "HOLDFAST_LOG__FORMAT": "json",
    }


@pytest.mark.timeout(180)
@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
async def test_everything_on_the_page_works(
    page: Path, reader: dict[str, str], tmp_path: Path, settings: Settings
) -> None:
    async with a_broker(settings) as broker:  # somebody listens to whatever the page publishes
        exchange, queue = (
            Exchange(settings.broker.exchange),
            Queue(settings.broker.exchange, {"x-queue-type": "quorum"}),
        )
        await broker.declare(Topology((exchange,), (queue,), (Binding(exchange.name, queue.name, "#"),)))

    with a_terminal(tmp_path, reader) as run:
        for step in steps(page):
            run(step)


@contextmanager
def a_terminal(folder: Path, environment: dict[str, str]) -> Iterator["Terminal"]:
    terminal = Terminal(folder, environment)
    try:
        yield terminal
    finally:
        terminal.close()


class Terminal:
    """Writes files, runs commands; `holdfast run` goes on in the background and must drain with exit 0."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder = folder
        self._environment = environment
        self._workers: list[tuple[str, subprocess.Popen[bytes], Path]] = []

    def __call__(self, step: Step) -> None:
        command = step.text
        if step.name is not None:
            (self._folder / step.name).write_text(command)
        elif command.startswith("make "):
            assert re.search(rf"^{command.split()[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), command
        elif command.startswith("pip install"):
            assert command in INSTALLS  # that the wheel installs is what this very run stands on
        elif command.startswith("holdfast run"):
            self._start(command)
        else:
            done = subprocess.run(
                ["bash", "-c", command],
                cwd=self._folder,
                env=self._environment,
                capture_output=True,
                timeout=90,
                check=False,
            )
            assert done.returncode == 0, f"{command}\n{done.stdout.decode()}\n{done.stderr.decode()}"

    def _start(self, command: str) -> None:
        log = self._folder / f"worker-{len(self._workers)}.log"
        with log.open("wb") as output:
            worker = subprocess.Popen(command.split(), cwd=self._folder, env=self._environment, stderr=output)
        self._workers.append((command, worker, log))
        deadline = time.monotonic() + 60
        while b"worker.started" not in log.read_bytes():
            assert worker.poll() is None and time.monotonic() < deadline, f"{command}\n{log.read_text()}"
            time.sleep(0.05)

    def close(self) -> None:
        for command, worker, log in self._workers:
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(60) == 0, f"{command}\n{log.read_text()}"


def test_the_web_application_of_the_documentation_publishes(
    reader: dict[str, str], tmp_path: Path, settings: Settings
) -> None:
    [web] = [step for step in steps(ROOT / "docs" / "publishing.md") if step.name == "web.py"]
    (tmp_path / "web.py").write_text(web.text)
    (tmp_path / "client.py").write_text(
        "from starlette.testclient import TestClient\n"
        "from web import app\n"
        "with TestClient(app) as client:\n"
        "    answer = client.post('/orders/o-1')\n"
        "    assert answer.status_code == 503 and 'no queue is bound' in answer.text, answer.text\n"
    )

    done = subprocess.run(
        [sys.executable, "client.py"], cwd=tmp_path, env=reader, capture_output=True, timeout=60, check=False
    )

    assert done.returncode == 0, done.stderr.decode()


def test_the_readme_lists_every_setting_with_its_default() -> None:
    told = (ROOT / "README.md").read_text().split("<!-- settings -->")[1].split("<!-- /settings -->")[0].strip()

    assert told == settings_table()


def settings_table() -> str:
    """What the README has to say between its two marks."""
    rows = ["| variable | default | what it is |", "|---|---|---|"]
    for name, field in known_variables().items():
        default = field.default.get_secret_value() if hasattr(field.default, "get_secret_value") else field.default
        rows.append(f"| `{name}` | `{default}` | {field.description} |")
    return "\n".join(rows)
