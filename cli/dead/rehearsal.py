"""Letters against today's code: `holdfast dead check`, the check before an edit, and the same for the page.

A handler runs on letters in the process of `dead check --run`, with the in-memory broker, which catches its publishes;
its transactions are rolled back. The page starts that command, so the handler cannot hurt the page."""

import asyncio
import json
import os
import sys
import tempfile
import uuid
from collections import Counter
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import cache, partial
from typing import IO

from pydantic import SecretStr

from ...broker import Binding, Delivery, Queue, Topology, open_broker, owning_queue
from ...config import Settings
from ...consumer import Dependencies, HandlerSpec
from ...dead_letters import Edit, Forecast, Index, Letter, Reader, Rehearsal, Selection, forecast, replayed, target_of
from ...events import ConfigurationError, read_incoming
from ...telemetry import Fact, Settled, neutral
from ..load import load_worker
from ..words import console, print_json

WITHIN = 600.0  # seconds after which the process of a rehearsal is killed
_CAUGHT = "holdfast.rehearsal"


def handler_of(worker: str, queue: str) -> HandlerSpec:
    """Return the handler that takes messages of a queue, or of one that belongs to it. Raises `ConfigurationError`."""
    specs, queue = {spec.queue: spec for spec in load_worker(worker).handlers}, owning_queue(queue)
    if queue not in specs:
        raise ConfigurationError(f"{worker} has no handler for queue {queue!r}; it has {', '.join(specs)}")
    return specs[queue]


def reader_of(worker: str, dead_queue: str, to: str | None) -> Reader:
    """Return a function that reads a letter, edited or not, as its handler would. It raises `DecodeError`."""
    spec_of = cache(partial(handler_of, worker))

    def read_letter(letter: Letter, edit: Edit | None) -> None:
        spec = spec_of(target_of(letter, dead_queue, to))
        message = letter.message if edit is None else replace(letter.message, body=edit.body_of(letter.message))
        incoming = read_incoming(message, datetime.now(UTC))
        spec.read(replace(incoming, metadata=replace(incoming.metadata, event_type=letter.event_type)))

    return read_letter


async def check_letters(
    queue: str, index: Index, selection: Selection, worker: str, *, run: bool, as_json: bool
) -> int:  # fmt: skip
    """Print which letters would be read now, and with `run` how the handler ends on them. Returns the exit code."""
    first = next(index.letters(selection), None)
    if first is None:
        raise ConfigurationError(f"no letter in {queue} matches")
    read_now = forecast(index.letters(selection), reader_of(worker, queue, None))
    ran: Rehearsal | None = None
    if run:
        spec = handler_of(worker, target_of(first, queue))
        with redirect_stdout(sys.stderr):  # the handler may print, and standard output is for our answer
            ran = await rehearse(worker, spec, list(index.letters(selection)))
    if as_json:
        value = asdict(read_now) | {"unreadable": read_now.unreadable, "run": None if ran is None else asdict(ran)}
        print_json(value)
    else:
        _print(read_now, ran)
    return 0 if not read_now.unreadable and not (ran and ran.failed) else 1


def _print(read_now: Forecast, ran: Rehearsal | None) -> None:
    at = console()
    at.print(f"{read_now.readable} would be read, {read_now.unreadable} would not")
    for finding in read_now.findings:
        example = f"(for instance {finding.examples[0]})"
        at.print(f"  {finding.count} x {neutral(finding.error, 1000)} {example}", soft_wrap=True)
    if ran is not None:
        at.print(f"run: {ran.handled} would be handled, {ran.failed} would not")
        for error, count in Counter(ran.errors).most_common():
            at.print(f"  {count} x {neutral(error, 1000)}", soft_wrap=True)
        published = ", ".join(f"{count} {neutral(kind, 120)}" for kind, count in sorted(ran.published.items()))
        at.print(f"  caught what it published: {published or 'nothing'}")


async def rehearse(target: str, spec: HandlerSpec, letters: Sequence[Letter]) -> Rehearsal:
    """Run the handler on each letter, once. Its lifespan and middleware run as well; its effects are real, but its
    transaction is rolled back."""
    worker = load_worker(target)
    ran, caught, ended = Rehearsal(), Counter[str](), Counter[str]()
    of_event = Counter(letter.event_id for letter in letters)

    def count(fact: Fact) -> None:
        if not isinstance(fact, Settled) or fact.outcome == "given_back":
            return
        event_id = fact.metadata.event_id
        if ended[event_id] >= max(1, of_event[event_id]):  # it waited, and ran again
            return
        ended[event_id] += 1
        if fact.outcome in ("handled", "duplicate"):
            ran.handled += 1
        else:
            ran.failed += 1
            ran.errors.append(f"{fact.error_type}: {fact.error}" if fact.error_type else "it would wait")
        if ended.total() >= len(letters):
            worker.stop(now=True)

    def catch(delivery: Delivery) -> None:
        caught[delivery.message.type or "?"] += 1

    settings = _in_memory(worker.settings)
    worker.configure(settings=settings, listeners=[count])
    broker = await open_broker(settings, lambda fact: None)
    [alone] = worker.selected([spec.name])
    alone.retry = replace(alone.retry, attempts=1, immediate=0)
    if alone.ordered is not None:
        alone.ordered = replace(alone.ordered, when_dead="go-on")
    running = asyncio.create_task(worker.run(only=[spec.name], dependencies=Dependencies(rehearses=True)))
    try:
        while not worker.health().ready and not running.done():  # noqa: ASYNC110 (it is asked, and sets no event)
            await asyncio.sleep(0.01)
        caught_all = Binding(settings.broker.exchange, _CAUGHT, "#")
        await broker.declare(Topology(queues=(Queue(_CAUGHT),), bindings=(caught_all,)))
        await broker.consume(_CAUGHT, prefetch=0, on_delivery=catch)
        for number, letter in enumerate(letters):  # each by itself, also where two are of one event
            message = replayed(letter, operation=f"rehearsal-{number}", target=spec.queue, forced=True)
            await broker.publish(message, timeout=None)
        await asyncio.wait({running})
    finally:
        worker.stop(now=True)
        await running
        await broker.close()
    ran.published = dict(caught)
    return ran


def _in_memory(settings: Settings) -> Settings:
    """Return the settings with a broker and a claim store of this process alone."""
    url = SecretStr(f"memory://{uuid.uuid4().hex}")
    broker = settings.broker.model_copy(update={"url": url, "topology": "declare"})
    claims = settings.idempotency.model_copy(update={"url": url})
    return settings.model_copy(update={"broker": broker, "idempotency": claims})


async def rehearse_in_child(worker: str, queue: str, selection: Selection) -> Rehearsal:
    """Run `holdfast dead check --run` on the letters that are selected, by the last reading.

    Raises `ConfigurationError`, with the last line of the command's output, where it did not come to its end."""
    options = [f"--{name}={value}" for name, value in selection.pairs()]
    command = ["-m", "holdfast", "dead", "check", "--run", "--cached", "--json", *options, "--", queue, worker]
    with tempfile.TemporaryFile() as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=log
        )
        try:
            async with asyncio.timeout(WITHIN):
                answer, _ = await process.communicate()
        except TimeoutError:
            raise ConfigurationError(f"the handler was not done within {WITHIN:g} s; the process was killed") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        try:
            return Rehearsal(**json.loads(answer)["run"])
        except (ValueError, KeyError, TypeError):
            reason = f"the run was broken off (exit code {process.returncode}){_last_line(log)}"
            raise ConfigurationError(reason) from None


def _last_line(log: IO[bytes]) -> str:
    log.seek(max(0, log.seek(0, os.SEEK_END) - 4_000))
    lines = log.read().decode(errors="replace").strip().splitlines()
    return f": {lines[-1]}" if lines else ""
