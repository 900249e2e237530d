"""Containers as `compose.yaml` describes them, run by Docker or by podman: the same words serve both."""

import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from waiting import blocking, eventually

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load(
    re.sub(r"\$\{\w+:-(\w+)\}", r"\1", (ROOT / "compose.yaml").read_text())  # every variable has a default
)
# `make test-containers` says which, and what its builds need besides.
ENGINE = shlex.split(os.environ.get("HOLDFAST_TEST_CONTAINERS", "docker"))
BUILD = shlex.split(os.environ.get("HOLDFAST_TEST_BUILD", ""))


def engine(*words: str | Path, check: bool = True) -> str:
    """Run a command of Docker or podman. Returns what it printed; fails with what it said."""
    done = subprocess.run([*ENGINE, *words], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0 or not check, f"{' '.join(map(str, words))}\n{done.stdout}\n{done.stderr}"
    return done.stdout.strip()


def build(name: str, folder: Path) -> str:
    """Build the Dockerfile in `folder`. Returns the image's name."""
    engine("build", *BUILD, "--tag", name, folder)
    return name


class Container:
    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def log(self) -> str:
        done = subprocess.run([*ENGINE, "logs", self.name], capture_output=True, text=True, check=True)
        return done.stdout + done.stderr

    def lines(self, event: str, **fields: object) -> list[dict[str, Any]]:
        """Lines of a worker's log of that event."""
        found = [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]
        return [line for line in found if line["event"] == event and fields.items() <= line.items()]

    def inspect(self, what: str) -> Any:
        return json.loads(engine("inspect", "--format", f"{{{{json {what}}}}}", self.name))

    @property
    def address(self) -> str:
        [network] = self.inspect(".NetworkSettings.Networks").values()
        return str(network["IPAddress"])

    def run(self, *command: str, check: bool = True) -> str:
        return engine("exec", self.name, *command, check=check)

    def well(self, command: Iterable[str]) -> bool:
        return subprocess.run([*ENGINE, "exec", self.name, *command], capture_output=True, check=False).returncode == 0

    def stop(self) -> int:
        """As `docker stop`: SIGTERM, and SIGKILL after the container's own time. Returns the exit code."""
        engine("stop", self.name)
        return int(self.inspect(".State.ExitCode"))


@contextmanager
def network(name: str) -> Iterator[str]:
    engine("network", "create", name)
    try:
        yield name
    finally:
        engine("network", "rm", "--force", name, check=False)


@contextmanager
def started(
    service: str, on: str, *, name: str | None = None, app: Path | None = None, **variables: str
) -> Iterator[Container]:
    """A service of `compose.yaml` on a network, waited for as its health check says. `app` is mounted instead of the
    example; `variables` are added to the environment."""
    described = COMPOSE["services"][service]
    volumes = {} if app is None else {"volumes": [f"{app}:/app:ro"]}
    container = Container(f"{on}-{name or service}")
    words = _words(described | volumes, on, **variables)
    engine(
        "run", "--detach", "--name", container.name, "--network-alias", service, *words, *described.get("command", [])
    )
    try:
        if "healthcheck" in described:
            blocking(eventually(lambda: container.well(described["healthcheck"]["test"][1:])))
        yield container
    finally:
        print(container.log[-4000:])
        engine("rm", "--force", "--volumes", "--time", "0", container.name, check=False)


def run_once(service: str, on: str, *command: str) -> str:
    """As `docker compose run --rm`: a command with a service's image and settings. Returns what it printed."""
    return engine("run", "--rm", *_words(COMPOSE["services"][service], on), *command)


def _words(described: Mapping[str, Any], on: str, **variables: str) -> list[str]:
    """What follows `run`, up to the image."""
    environment = described.get("environment", {}) | variables
    return [
        f"--network={on}",
        *(f"--volume={_volume(volume)}" for volume in described.get("volumes", [])),
        *(f"--env={name}={value}" for name, value in environment.items()),
        *_safety(described),
        described["image"],
    ]


def _volume(volume: str) -> str:
    """A file or folder of ours, or a volume without a name: it goes with its container."""
    source, rest = volume.split(":", 1)
    return f"{ROOT / source}:{rest}" if source.startswith((".", "/")) else rest


def _safety(described: Mapping[str, Any]) -> list[str]:
    words = [f"--cap-drop={name}" for name in described.get("cap_drop", [])]
    words += [f"--security-opt={option}" for option in described.get("security_opt", [])]
    if "hostname" in described:
        words.append(f"--hostname={described['hostname']}")
    if "stop_grace_period" in described:
        words.append(f"--stop-timeout={described['stop_grace_period'].removesuffix('s')}")
    if described.get("read_only"):
        words.append("--read-only")
        if "podman" in Path(ENGINE[0]).name:
            words.append("--read-only-tmpfs=false")  # Docker mounts no writable folders of its own accord
    return words
