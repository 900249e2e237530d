"""Runs the tests of what runs in containers (tests/containers), with Docker where it answers and with podman elsewhere.

With root on Debian or Ubuntu nothing need be prepared: podman comes from the archive, the images are made from Debian
packages under the names of the public ones, and podman's Docker API stands in for the engine. Arguments go to pytest.
"""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from brokers import install
from images import lend_pip, stand_in

from holdfast.testing.servers import this_machine

PACKAGES = ["podman", "buildah", "runc", "netavark", "aardvark-dns", "iptables", "uidmap", "catatonit"]
CACHE = Path(os.environ.get("HOLDFAST_BROKERS_DIR") or Path.home() / ".cache/holdfast/brokers")

# What works without systemd, in a machine that is itself a container.
CONF = """
[containers]
default_ulimits = ["nofile=10000:10000", "nproc=20000:20000"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
exit_command_delay = 1
[network]
network_backend = "netavark"
"""

BUILD = ["--isolation=chroot", "--format=docker"]  # the other kinds of isolation need more than such a machine gives


def main() -> int:
    if this_machine(os.environ).docker:
        return run_tests(os.environ)
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        sys.exit("Docker does not answer: start it, or run this as root on Debian or Ubuntu, where podman stands in.")
    if shutil.which("podman") is None or shutil.which("runc") is None:
        install(*PACKAGES)
    with tempfile.TemporaryDirectory(prefix="holdfast-podman-") as folder, podman_api(Path(folder)) as variables:
        return run_tests(variables)


def run_tests(environment: Mapping[str, str]) -> int:
    pytest = [Path(sys.executable).with_name("pytest"), "tests/containers", *sys.argv[1:]]
    return subprocess.run(pytest, env=environment, check=False).returncode


@contextmanager
def podman_api(folder: Path) -> Iterator[dict[str, str]]:
    """podman's Docker API on a socket in `folder`, with the images; yields the environment that leads to it."""
    (folder / "containers.conf").write_text(CONF)
    environment = os.environ | {"CONTAINERS_CONF": str(folder / "containers.conf")}
    podman = ["podman", "--root", f"{folder}/root", "--runroot", f"{folder}/run", "--storage-driver=vfs"]
    stand_in(podman, environment, CACHE)
    socket = folder / "docker.sock"
    service = subprocess.Popen([*podman, "system", "service", "-t", "0", f"unix://{socket}"], env=environment)
    try:
        wait_for(socket, service)
        yield environment | {
            "DOCKER_HOST": f"unix://{socket}",
            "TESTCONTAINERS_RYUK_DISABLED": "true",
            "TESTCONTAINERS_HOST_OVERRIDE": "127.0.0.1",
            "TESTCONTAINERS_CONNECTION_MODE": "docker_host",
            "HOLDFAST_TEST_CONTAINERS": shlex.join(podman),
            "HOLDFAST_TEST_BUILD": shlex.join([*BUILD, *lend_pip(folder)]),
        }
    finally:
        subprocess.run(
            [*podman, "rm", "--all", "--force", "-t", "0"], env=environment, stdout=subprocess.DEVNULL, check=False
        )
        service.terminate()
        service.wait()


def wait_for(socket: Path, service: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while not this_machine({"DOCKER_HOST": f"unix://{socket}"}).docker:
        if service.poll() is not None or time.monotonic() > deadline:
            sys.exit("podman's Docker API does not answer.")
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
