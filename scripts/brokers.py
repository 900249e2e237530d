"""Runs the tests that need a broker against each RabbitMQ release we promise to work with.

The releases are Debian's: bookworm has 3.10, trixie 4.0, sid 4.3. Each lives in a folder made once by `debootstrap`,
under HOLDFAST_BROKERS_DIR (by default ~/.cache/holdfast/brokers). Arguments are handed to pytest.

    python scripts/brokers.py [--only RELEASE]... [pytest arguments]
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

RELEASES = {"bookworm": "RabbitMQ 3.10", "trixie": "RabbitMQ 4.0", "sid": "RabbitMQ 4.3"}
SUITES = ["tests/contract", "tests/integration", "tests/faults"]
PROGRAM = "usr/lib/rabbitmq/bin/rabbitmq-server"


def main() -> int:
    options, for_pytest = arguments()
    folders = {release: made(options.folder / release) for release in options.only or RELEASES}
    failed = [release for release, folder in folders.items() if not passes(release, folder, for_pytest)]
    for release in folders:
        print(f"{RELEASES[release]:14} {'FAILED' if release in failed else 'passed'}")
    return 1 if failed else 0


def arguments() -> tuple[argparse.Namespace, list[str]]:
    default = os.environ.get("HOLDFAST_BROKERS_DIR") or Path.home() / ".cache/holdfast/brokers"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(default), help="where the releases are kept")
    parser.add_argument("--only", action="append", choices=RELEASES, help="this release only; may be repeated")
    return parser.parse_known_args()


def made(folder: Path, release: str | None = None, include: str = "rabbitmq-server", program: str = PROGRAM) -> Path:
    """The folder with a Debian release (by default the one it is named after) and a program, made if need be."""
    release = release or folder.name
    if (folder / program).exists():
        return folder
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        sys.exit(f"There is no {program} in {folder}, and only root on Debian or Ubuntu can make it (debootstrap).")
    if shutil.which("debootstrap") is None:
        install("debootstrap", "debian-archive-keyring")
    print(f"Making {folder} (Debian {release} with {include})", flush=True)
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    log = unfinished.with_suffix(".log")
    with log.open("wb") as output:
        command = [
            "debootstrap",
            "--variant=minbase",
            f"--include={include}",
            release,
            str(unfinished),
        ]
        if subprocess.run(command, stdout=output, stderr=output, check=False).returncode != 0:
            sys.exit(f"debootstrap failed; {log} says why.")
    return unfinished.rename(folder)


def install(*packages: str) -> None:
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
        subprocess.run(["apt-get", "-qq", *command], env=environment, stdout=subprocess.DEVNULL, check=True)


def passes(release: str, folder: Path, for_pytest: list[str]) -> bool:
    print(f"\n=== {RELEASES[release]} ({folder})", flush=True)
    variables = {name: value for name, value in os.environ.items() if name != "HOLDFAST_TEST_RABBITMQ_URL"}
    suites = [suite for suite in SUITES if Path(suite).is_dir()]
    pytest = [Path(sys.executable).with_name("pytest"), *(for_pytest or suites)]
    environment = variables | {"HOLDFAST_TEST_RABBITMQ_ROOT": str(folder.resolve())}
    return subprocess.run(pytest, env=environment, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
