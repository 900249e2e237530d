"""Runs `holdfast` and other programs, each in a fork of this process, which has imported Holdfast and its libraries.

`python forks.py SOCKET` listens there until its standard input ends. A connection carries one command: its words,
folder and environment as JSON, with its standard files. Back come its process id and its exit code, a line each.
"""

import atexit
import gc
import importlib
import json
import os
import pkgutil
import re
import runpy
import select
import signal
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import holdfast
from holdfast.cli.app import main

LARGEST = 1 << 20  # bytes of a request


def import_everything() -> None:
    """Import every module of Holdfast, but for those that ask for settings of Django, and for tests."""
    for module in pkgutil.walk_packages(holdfast.__path__, "holdfast."):
        if not re.search(r"\.(django|testing|__main__)\b", module.name):
            importlib.import_module(module.name)
    gc.freeze()  # else each fork copies the memory that its first collection looks at


def serve(path: str) -> None:
    """Fork for each connection, and report on each fork. Returns in the forks alone, in which the command is to run."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        print("listening", flush=True)
        running: dict[int, socket.socket] = {}  # by the file that can be read once a fork ended
        while sys.stdin not in (ready := select.select([server, sys.stdin, *running], [], [])[0]):
            for file in running.keys() & ready:
                report(file, running.pop(file))
            if server in ready:
                connection, _ = server.accept()
                text, files = read(connection)
                pid = os.fork()
                if pid == 0:
                    for inherited in running:
                        os.close(inherited)
                    for other in (server, connection, *running.values()):
                        other.close()
                    return become(json.loads(text), files)
                for number in files:
                    os.close(number)
                with suppress(OSError):
                    connection.sendall(f"{pid}\n".encode())
                running[os.pidfd_open(pid)] = connection
    os._exit(0)


def read(connection: socket.socket) -> tuple[bytes, list[int]]:
    """Return what a connection asks for, and the standard files that came with it."""
    text, files, _, _ = socket.recv_fds(connection, LARGEST, 3)
    while not text.endswith(b"\n"):
        text += connection.recv(LARGEST) or b"\n"
    return text, files


def report(file: int, connection: socket.socket) -> None:
    """Reap a fork that ended, and send its exit code to whoever still waits for it."""
    ended = os.waitid(os.P_PIDFD, file, os.WEXITED)
    os.close(file)
    assert ended is not None
    with connection, suppress(OSError):
        code = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
        connection.sendall(f"{code}\n".encode())


def become(command: dict[str, Any], files: list[int]) -> None:
    """Take on what a process of its own would have been started with."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    if command["own_group"]:
        os.setsid()
    os.chdir(command["folder"])
    os.environ.clear()
    os.environ.update(command["env"])
    sys.argv = command["words"]
    sys.path[:1] = [str(Path(sys.executable).parent), *command["path"]]  # the console script's folder comes first


def run() -> None:
    """Run the command. Ends the process as Python does, but for taking apart what was imported: a fork would have to
    copy it first."""
    code: int | str | None = None
    try:
        if sys.argv[0] == "holdfast":
            main()
        else:
            runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as ending:
        code = ending.code
    if isinstance(code, int | None):
        with suppress(OSError, ValueError):  # of a standard file that is closed: Python says so at the end
            threading._shutdown()  # type: ignore[attr-defined]
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code or 0)
    sys.exit(code)


if __name__ == "__main__":
    import_everything()
    serve(sys.argv[1])
    run()
