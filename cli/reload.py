"""`holdfast run --reload`: a parent that starts the worker again whenever a Python file below this folder changes."""

import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, NoReturn

from ..events import ConfigurationError
from .signals import heeded


def run_reloading() -> NoReturn:
    """Run this command again without `--reload`, as a child; drain and replace it on each change. Never returns."""
    try:
        from watchfiles import PythonFilter, watch
    except ImportError:
        raise ConfigurationError("--reload needs watchfiles: pip install 'holdfast-rabbitmq[reload]'") from None
    child = _Child([sys.executable, "-m", "holdfast", *(word for word in sys.argv[1:] if word != "--reload")])
    stopping = threading.Event()

    def stop(number: int, frame: Any) -> None:
        stopping.set()
        child.tell_to_stop()

    for number in heeded():
        signal.signal(number, stop)
    child.start()
    for changes in watch(Path.cwd(), watch_filter=PythonFilter(), stop_event=stopping, raise_interrupt=False):
        names = ", ".join(sorted({Path(path).name for _, path in changes})[:3])
        print(f"holdfast: {names} changed, starting again", file=sys.stderr, flush=True)
        child.tell_to_stop()
        child.until_it_ended()
        if not stopping.is_set():
            child.start()
    sys.exit(child.until_it_ended())


class _Child:
    """The worker's process. It leads a group of its own: Ctrl-C in the terminal reaches the parent alone, which then
    tells it once. Two signals would mean "at once"."""

    def __init__(self, command: list[str]) -> None:
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, process_group=0)

    def tell_to_stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def until_it_ended(self) -> int:
        return self._process.wait() if self._process is not None else 0
