"""A command behind an init that reads its terminal, as a debugger does, and is interrupted there."""

import os
import pty
import signal

from holdfast.cli.init import serve_as_init

signal.alarm(20)
process, terminal = pty.fork()
if process == 0:
    serve_as_init()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    print(f"read {input()}", flush=True)
    print(f"heard {signal.Signals(signal.sigwait({signal.SIGINT})).name}", flush=True)
else:
    os.write(terminal, b"hello\n")
    said = b""
    while b"read hello" not in said:
        said += os.read(terminal, 1_000)
    os.write(terminal, b"\x03")
    while b"heard SIGINT" not in said:
        said += os.read(terminal, 1_000)
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
