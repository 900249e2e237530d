"""`rabbitmqctl` that stays: one Erlang machine answers all questions to a node, in milliseconds each."""

import os
import select
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from holdfast.testing.servers import PrivateRabbitMQ, RabbitMQPrograms

_WITHIN = 60.0  # seconds an answer may take
_END = b"--console--"

# Unpacks the program `rabbitmqctl` and calls its entry with the words of each line read; the words are set apart by
# tabs. What it prints is followed by a line that says whether all went well. It ends with its input.
_PROGRAM = """
{ok, Parts} = escript:extract("%(escript)s", []),
{archive, Archive} = lists:keyfind(archive, 1, Parts),
{ok, _} = zip:unzip(Archive, [{cwd, "%(folder)s"}]),
code:add_patha("%(folder)s"),
{ok, _} = application:ensure_all_started(elixir),
application:load(rabbitmqctl),
Print = fun(Output, Command, Options) ->
    Formatter = 'Elixir.RabbitMQ.CLI.Core.Config':get_formatter(Command, Options),
    Printer = 'Elixir.RabbitMQ.CLI.Core.Config':get_printer(Command, Options),
    Text = 'Elixir.RabbitMQ.CLI.Core.Output':format_output(Output, Formatter, Options),
    'Elixir.RabbitMQ.CLI.Core.Output':print_output(Text, Printer, Options)
end,
Loop = fun(Loop) ->
    case io:get_line("") of
        eof -> halt(0);
        Line ->
            Words = [unicode:characters_to_binary(Word) || Word <- string:lexemes(string:trim(Line), "\\t")],
            Result = (catch 'Elixir.RabbitMQCtl':exec_command(Words, Print)),
            io:format("~n--console--~s~n", [if Result =:= ok -> "ok"; true -> "failed" end]),
            Loop(Loop)
    end
end,
Loop(Loop).
"""


class Console:
    """Starts with the first question and ends with `close`. Questions may come from any thread."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """`command` is the one to start, with `environment`; see `console_command`."""
        self._command, self._environment = command, environment
        self._child: subprocess.Popen[bytes] | None = None
        self._one_at_a_time = threading.Lock()

    def ask(self, arguments: Sequence[str]) -> str | None:
        """Return what `rabbitmqctl --quiet` prints for these arguments; None where it fails or does not answer."""
        if not all(arguments) or any(character in word for word in arguments for character in "\t\n"):
            return None
        with self._one_at_a_time:
            try:
                return self._answer("\t".join(["--quiet", *arguments]))
            except OSError:
                self.close()
                return None

    def close(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None

    def _answer(self, line: str) -> str | None:
        child = self._running()
        assert child.stdin
        assert child.stdout
        child.stdin.write(line.encode() + b"\n")
        child.stdin.flush()
        output, last = b"", time.monotonic() + _WITHIN
        while not output.endswith((_END + b"ok\n", _END + b"failed\n")):
            ready, _, _ = select.select([child.stdout], [], [], max(0.0, last - time.monotonic()))
            more = os.read(child.stdout.fileno(), 65_536) if ready else b""
            if not more:
                raise OSError("it does not answer")
            output += more
        text, _, verdict = output.rpartition(b"\n" + _END)
        return text.decode(errors="replace") if verdict == b"ok\n" else None

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._child is None or self._child.poll() is not None:
            self._child = subprocess.Popen(
                self._command,
                env=dict(self._environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        return self._child


def console_command(escript: Path, folder: Path) -> list[str]:
    """Return the command of a console. `escript` is the program `rabbitmqctl`; it is unpacked into `folder`."""
    program = _PROGRAM % {"escript": escript, "folder": folder}
    options = ("+B", "-boot", "start_clean", "-noinput", "-noshell", "-hidden")
    return ["erl", *options, "-eval", program, "-extra", "rabbitmqctl"]


class ConsoleRabbitMQ(PrivateRabbitMQ):
    """A private node whose `ctl` starts one Erlang for all questions. A release in a folder is asked as usual.

    Its quorum queues do not wait for the disk: a killed process loses nothing that the operating system has.
    """

    def __init__(self, programs: RabbitMQPrograms, data: Path) -> None:
        super().__init__(programs, data)
        self._environment["RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS"] += " -ra wal_sync_method none"
        scripts = programs.server.parent.parent.glob("lib/rabbitmq_server-*/escript/rabbitmqctl")
        escript = next(scripts, None) if type(programs) is RabbitMQPrograms else None
        self._console: Console | None = None
        if escript is not None:
            home = {"RABBITMQ_HOME": str(escript.parent.parent)}
            self._console = Console(console_command(escript, data / "rabbitmqctl"), self._environment | home)

    def ctl(self, *arguments: str) -> str:
        if self._console is not None and (answer := self._console.ask(arguments)) is not None:
            return answer
        return super().ctl(*arguments)

    def close(self) -> None:
        super().close()
        if self._console is not None:
            self._console.close()
