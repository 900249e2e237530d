"""The session of a command of `holdfast dead`: the service, what is asked of a person, and an operation under a bar."""

import asyncio
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from ...broker import REGISTRY, open_broker
from ...config import LogSettings, load_settings
from ...dead_letters import Chosen, DeadLetters, Edit, Operation, Outage, Pace, Request, Selection, target_of
from ...dead_letters.view import letter_json
from ...events import BrokerUnavailable, ConfigurationError, HoldfastError
from ...telemetry import configure_logging, mark_heard, neutral
from ..reach import check_reach
from ..words import console, print_json
from .progress import bar, pausing
from .tables import groups_table, operation_line, print_json_with

CONNECT_WITHIN = 15.0
_DONE = {"replay": "replayed", "discard": "discarded"}
_QUESTIONS = {
    "replay": "Replay {count:,} letter(s) to {target}?",
    "discard": "Discard {count:,} letter(s), to an archive?",
    "edit": "Replay letter {key} as a new event?",
}


@asynccontextmanager
async def open_service(*, any_queue: bool = False) -> AsyncIterator[DeadLetters]:
    """Open the dead letters of the broker that the settings name. Raises `BrokerUnavailable` where it does not answer,
    `HoldfastError` where the files of the tools cannot be read or written."""
    settings = load_settings()
    configure_logging(LogSettings(level="CRITICAL"))
    check_reach(settings.broker)
    outage = Outage(len(settings.broker.urls))
    broker = await open_broker(settings, outage)
    try:
        with closing(DeadLetters(settings, broker, any_queue=any_queue, outage=outage)) as service:
            await _until_reached(service)
            yield service
    except sqlite3.Error as error:
        files = "the files of the dead-letter tools, in HOLDFAST_DEAD_LETTERS__FOLDER"
        raise HoldfastError(f"{files}: {error}") from error
    finally:
        await broker.close()


async def _until_reached(service: DeadLetters) -> None:
    """Return once the broker has answered. Where each of its hosts has failed once, people see it at once."""
    asked = asyncio.ensure_future(service.broker.count(REGISTRY))
    asked.add_done_callback(mark_heard)  # the outage is told in its place
    failed = asyncio.ensure_future(service.outage.begun.wait())
    await asyncio.wait({asked, failed}, timeout=CONNECT_WITHIN, return_when=asyncio.FIRST_COMPLETED)
    failed.cancel()
    if asked.done():
        asked.result()
    else:
        asked.cancel()
        service.outage.check()
        raise BrokerUnavailable("the broker does not answer")


def edit_of(body: str | None, headers: Sequence[str], dropped: Sequence[str]) -> Edit:
    """Return the edit that the options of `dead edit` make up. `body` names a file, or is `-` for standard input."""
    changes: dict[str, str | None] = dict.fromkeys(dropped)
    for text in headers:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigurationError(f"--header {text!r} is not NAME=VALUE")
        changes[name] = value
    if body is None and not changes:
        raise ConfigurationError("nothing is different; give --body, --header or --no-header")
    new = None if body is None else sys.stdin.buffer.read() if body == "-" else Path(body).read_bytes()
    return Edit(new, changes)


@dataclass(frozen=True, slots=True)
class Session:
    """A command's way to the dead letters, and to whoever reads its answer: a person or, with `as_json`, a program."""

    service: DeadLetters
    as_json: bool

    async def read(self, name: str, *, cached: bool = False, worn: bool = False) -> str:
        """Return the dead-letter queue that a name means, freshly read into its index unless `cached`. On a terminal a
        count runs."""
        queue = await self.service.resolve(name)
        if cached and self.service.index(queue).read_at is not None:
            return queue
        with Console(stderr=True, highlight=False).status(f"reading {queue}") as status:
            await self.service.read(
                queue, worn_too=worn, tell=lambda count: status.update(f"reading {queue}: {count:,} letters")
            )
        return queue

    def say(self, value: Any, text: str) -> int:
        """Print a value for programs, or a text for people."""
        print_json(value) if self.as_json else print(text)
        return 0

    def list(self, listed: Sequence[Any], table: Callable[[Sequence[Any]], Table], nothing: str) -> int:
        """Print what is listed, or for people that there is nothing."""
        if self.as_json:
            print_json([asdict(one) for one in listed])
        elif listed:
            console().print(table(listed))
        else:
            print(nothing, file=sys.stderr)
        return 0

    def choose(
        self, queue: str, selection: Selection, kind: str, *, to: str | None = None, dry_run: bool = False, yes: bool
    ) -> Chosen | None:
        """Return the letters to go on with, after a person has seen which they are and was asked. Where it is a dry
        run, or nothing is selected, they are only shown."""
        index = self.service.index(queue)
        chosen = index.choose(selection)
        count, first = len(chosen.letters), chosen.first
        if first is not None and not dry_run:
            if not yes:
                target = "" if kind == "discard" else target_of(first, queue, to)
                question = _QUESTIONS[kind].format(count=count, target=target, key=first.key)
                self.confirm(question, groups_table(index.groups(selection)))
            return chosen
        if self.as_json:
            letters = map(letter_json, index.letters(selection))
            print_json_with({"queue": queue, "dry_run": True}, "letters", letters)
        else:
            print(f"{count:,} letter(s) of {neutral(queue)} would be {_DONE[kind]}")
            if count:
                console().print(groups_table(index.groups(selection)))
        return None

    def confirm(self, question: str, *shown: Table) -> None:
        """Ask a person, who is shown something first. Raises `ConfigurationError` where nobody can be asked, or says
        no."""
        if self.as_json or not sys.stdin.isatty():
            hint = "say --yes, or --dry-run to see what is meant"
            raise ConfigurationError(f"standard input is not a terminal, so this cannot be confirmed; {hint}")
        console().print(*shown)
        if not typer.confirm(question):
            raise ConfigurationError("nothing was done")

    async def work(self, operation: Operation, pace: Pace = Pace()) -> Operation:  # noqa: B008 (frozen)
        """Carry an operation out under a bar; Ctrl-C pauses it. Returns how it stands then."""
        with bar(self.service, operation, hidden=self.as_json) as tell, pausing(self.service, operation):
            return await self.service.work(operation, pace, tell).run()

    async def carry_out(self, operation: Operation, pace: Pace = Pace()) -> int:  # noqa: B008 (frozen)
        """Carry an operation out and print how it ended. Returns the exit code."""
        ended = await self.work(operation, pace)
        archive = None if ended.kind == "replay" else str(self.service.archive_of(ended))
        if self.as_json:
            print_json(self._account(ended) | {"archive": archive})
        else:
            print(operation_line(ended))
            for item in self.service.journal.failures(ended.id, 5):
                print(f"  {item.key} {item.state}: {neutral(item.error, 300)}")
            if archive is not None:
                print(f"archive: {archive}")
            _print_how_to_resume(ended)
        good = ended.state == "done" or (ended.state == "waiting" and not pace.wait)
        return 0 if good and not ended.counts.get("failed") else 1

    def imported(self, ended: Sequence[Operation]) -> int:
        """Print how imports ended. Returns the exit code."""
        restored, present = (sum(one.counts.get(state, 0) for one in ended) for state in ("restored", "present"))
        if self.as_json:
            print_json({"imported": restored, "present": present, "operations": [asdict(one) for one in ended]})
        else:
            print(f"{restored:,} letter(s) imported" + (f", {present:,} were there already" if present else ""))
            for one in ended:
                _print_how_to_resume(one)
        return 0 if all(one.state == "done" for one in ended) else 1

    def ask(self, name: str, request: Request) -> int:
        """Have an operation paused or cancelled, and print how it stands."""
        operation = self.service.operation(name)
        self.service.ask(operation, request)
        asked = self.service.operation(operation.id)
        return self.say(self._account(asked), operation_line(asked))

    def _account(self, operation: Operation) -> dict[str, Any]:
        failures = [asdict(item) for item in self.service.journal.failures(operation.id)]
        return {"operation": asdict(operation) | {"unconfirmed": operation.unconfirmed}, "failures": failures}


def _print_how_to_resume(ended: Operation) -> None:
    if ended.state in ("paused", "stopped", "waiting"):
        print(f"go on with: holdfast dead resume {ended.id}")
