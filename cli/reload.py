"""`holdfast run --reload`: a parent that starts the worker again whenever a Python file below this folder changes."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

from ..events import ConfigurationError


def run_reloading() -> NoReturn:
    """Run this command again without `--reload`, as a child; drain and replace it on each change. Never returns."""
    try:
        from watchfiles import PythonFilter, watch
    except ImportError:
        raise ConfigurationError("--reload needs watchfiles: pip install 'holdfast[reload]'") from None
    command = [sys.executable, "-m", "holdfast", *(argument for argument in sys.argv[1:] if argument != "--reload")]
    child = subprocess.Popen(command)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(_stop(child)))
    try:
        for changes in watch(Path.cwd(), watch_filter=PythonFilter(), raise_interrupt=False):
            names = ", ".join(sorted({Path(path).name for _, path in changes})[:3])
            print(f"holdfast: {names} changed, starting again", file=sys.stderr, flush=True)
            _stop(child)
            child = subprocess.Popen(command)
    finally:
        _stop(child)
    sys.exit(0)


def _stop(child: "subprocess.Popen[bytes]") -> int:
    if child.poll() is None:
        child.terminate()
    return child.wait()
