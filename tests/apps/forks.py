"""Runs `holdfast` and other programs, each in a fork of this process, which has imported Holdfast and its libraries.

`python forks.py SOCKET` listens there until its standard input ends. A connection carries one command: its words,
folder and environment as JSON, with its standard files. Back come its process id and its exit code, a line each.
"""

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
    """Fork once for each connection. Returns in the forks alone, in which the command is to run."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        print("listening", flush=True)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that wait
        while server in select.select([server, sys.stdin], [], [])[0]:
            connection, _ = server.accept()
            if os.fork() == 0:
                server.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                return start(connection)
            connection.close()
    os._exit(0)


def start(connection: socket.socket) -> None:
    """Fork the command, and report on it. Returns in the fork alone."""
    text, files, _, _ = socket.recv_fds(connection, LARGEST, 3)
    while not text.endswith(b"\n"):
        text += connection.recv(LARGEST)
    pid = os.fork()
    if pid == 0:
        connection.close()
        return become(json.loads(text), files)
    for file in files:
        os.close(file)
    connection.sendall(f"{pid}\n".encode())
    _, status = os.waitpid(pid, 0)
    connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


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


if __name__ == "__main__":
    import_everything()
    serve(sys.argv[1])
    if sys.argv[0] == "holdfast":
        main()
    else:
        runpy.run_path(sys.argv[0], run_name="__main__")
