"""Runs the tests of the dead-letter page in Chromium: the one of this machine, or Playwright's own, or the package's.

Arguments go to pytest.
"""

import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def main() -> int:
    program = os.environ.get("HOLDFAST_TEST_CHROMIUM") or found() or installed()
    environment = os.environ | ({"HOLDFAST_TEST_CHROMIUM": program} if program else {})
    return subprocess.call([sys.executable, "-m", "pytest", "tests/browser", *sys.argv[1:]], env=environment)


def found() -> str | None:
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def installed() -> str | None:
    """Debian's package where that may be installed; else what Playwright downloads, which it finds by itself."""
    if shutil.which("apt-get") and os.geteuid() == 0:
        subprocess.call(["apt-get", "install", "-y", "-q", "--no-install-recommends", "chromium"])
        if (path := found()) is not None:
            return path
    if subprocess.call([sys.executable, "-m", "playwright", "install", "chromium"]):
        sys.exit("no Chromium was found, and none could be installed: name one with HOLDFAST_TEST_CHROMIUM")
    return None


if __name__ == "__main__":
    sys.exit(main())
