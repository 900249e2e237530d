"""The servers from the Debian or Ubuntu archive, for root alone."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .node import ServersUnavailable
from .process import SEARCH_PATH

# dpkg asks this script before it starts a service; 101 means no.
_POLICY = Path("/usr/sbin/policy-rc.d")


def install(package: str) -> None:
    """`apt-get install` one package, without starting the service it brings.

    Raises `ServersUnavailable` if apt-get fails.
    """
    with _no_services_started():
        _apt_get("update")
        _apt_get("install", "-y", "--no-install-recommends", package)


def _apt_get(*arguments: str) -> None:
    command = ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=120", *arguments]
    environment = {"PATH": SEARCH_PATH, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        last = (ended.stderr or ended.stdout).strip().splitlines()[-1:] or ["no reason given"]
        raise ServersUnavailable(f"{' '.join(command)} failed: {last[0]}")


@contextmanager
def _no_services_started() -> Iterator[None]:
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink(missing_ok=True)
