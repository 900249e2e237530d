"""A process that takes orphans, as PID 1 does: it serves as init for a command, and says what it reaped."""

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path

from holdfast.cli.init import serve_as_init

PR_SET_CHILD_SUBREAPER = 36
SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


def command() -> None:
    """Leave an orphan that ends at once, wait until it is reaped, then for a signal."""
    orphan = int(subprocess.run(["sh", "-c", "true & echo $!"], stdout=subprocess.PIPE, check=True).stdout)
    while Path(f"/proc/{orphan}").exists():
        os.sched_yield()
    own = subprocess.run(["sh", "-c", "exit 3"], check=False).returncode
    print(f"orphan reaped, own child's code {own}", flush=True)
    heard = signal.Signals(signal.sigwait(SIGNALS))
    print(f"heard {heard.name}", flush=True)
    sys.exit(7)


ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
serve_as_init()
for number in SIGNALS:
    signal.signal(number, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
command()
