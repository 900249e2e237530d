"""`holdfast sagas`: where each stands, drawn, and moved by hand."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from ..config import load_settings
from ..consumer import HandlerSpec, Worker
from ..dead_letters.view import span
from ..events import ConfigurationError
from ..sagas import Saga
from ..sagas.by_hand import ByHand
from ..sagas.diagram import diagram
from ..sagas.including import sagas_of
from ..sagas.reading import Overview, read_one, read_overview
from ..sql import Database
from .load import load_worker
from .sql import opened
from .words import console, print_json

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def list_sagas(saga: str, *, stage: str | None, older: str | None, limit: int, as_json: bool) -> None:
    """Print the sagas that have not ended, the oldest first."""

    async def read() -> list[Overview]:
        settings = load_settings()
        async with opened(settings) as database:
            seconds = 0.0 if older is None else _seconds(older)
            statements = database.statements(settings.sql.schema)
            return await database.run(read_overview(statements, _name(saga), stage, seconds, limit))

    sagas = asyncio.run(read())
    if as_json:
        print_json([one.as_dict() for one in sagas])
        return
    for one in sagas:
        reason = f" ({one.reason})" if one.reason else ""
        console().print(f"{one.key}  {one.stage} for {span(one.resting)}{due_text(one.due_in)}{reason}", soft_wrap=True)
    print(f"{len(sagas)} shown")


def show_saga(saga: str, key: str, *, as_json: bool) -> None:
    """Print one saga. Raises `ConfigurationError` where there is none."""

    async def read() -> dict[str, Any]:
        settings = load_settings()
        async with opened(settings) as database:
            return await database.run(read_one(database.statements(settings.sql.schema), _name(saga), key))

    shown = asyncio.run(read())
    if as_json:
        print_json(shown)
        return
    out = console()
    rests = f"{shown['stage']} for {span(shown['resting'])}{due_text(shown['due_in'])}"
    out.print(f"{shown['saga']} {shown['key']}: {rests}", soft_wrap=True)
    if shown["reason"]:
        out.print(f"reason: {shown['reason']}", soft_wrap=True)
    out.print(f"state: {json.dumps(shown['state'])}", soft_wrap=True)
    for undo in shown["undo"]:
        awaited = f"published as {undo['sent']}, awaits {undo['awaits']}" if undo["sent"] else "not published"
        out.print(f"to undo: {undo['type']} ({awaited})", soft_wrap=True)
    for step in shown["steps"]:
        at = datetime.fromtimestamp(step["at"], UTC).isoformat(timespec="milliseconds")
        note = f" ({step['note']})" if step["note"] else ""
        out.print(
            f"{at}  {step['stage']:<14} {step['taken']}: {step['event_type']} {step['event_id']}{note}", soft_wrap=True
        )
        for sent in step["published"]:
            out.print(f"{'':<27}published {sent['type']} {sent['id']}", soft_wrap=True)


def print_diagrams(target: str, saga: str | None) -> None:
    """Print the diagrams of a worker's sagas, or of one. Raises `ConfigurationError` for one that it does not have."""
    worker = load_worker(target)
    for _, kind in sagas_of(worker) if saga is None else [_chosen(worker, saga)]:
        print(diagram(kind.graph()), end="")


def nudge_saga(target: str, saga: str, key: str, why: str) -> None:
    """Publish the awaited undo again."""
    _by_hand(target, saga, lambda hand: hand.nudge(key, why))
    print(f"the undo that {key} awaits is published again")


def skip_undo(target: str, saga: str, key: str, why: str) -> None:
    """Take the awaited undo for done."""
    _by_hand(target, saga, lambda hand: hand.skip_undo(key, why))
    print(f"the undo that {key} awaited is taken for done")


def move_sagas(target: str, saga: str, key: str | None, *, of_stage: str | None, to: str, why: str) -> None:
    """Move one saga, or all that rest in a stage."""
    if (key is None) == (of_stage is None):
        raise ConfigurationError("which sagas? give KEY, or --from STAGE")

    async def move(hand: ByHand) -> int:
        keys = [key] if key is not None else await hand.keys_at(of_stage or "")
        return sum([await hand.move(each, to, why, of_stage=of_stage) for each in keys])

    print(f"{_by_hand(target, saga, move)} moved to {to}")


def _by_hand(target: str, saga: str, act: Callable[[ByHand], Awaitable[Any]]) -> Any:
    """Act on the sagas of a worker, in the database that `HOLDFAST_SQL__URL` names, or else in the worker's own."""
    worker = load_worker(target)
    (spec, kind), settings = _chosen(worker, saga), worker.settings

    async def on(database: Database[Any]) -> Any:
        sql, queue = settings.sql, spec.queue
        return await act(ByHand(kind, database, schema=sql.schema, source=worker.name, queue=queue, keeps=sql.keeps))

    async def command() -> Any:
        if settings.sql.url is None and spec.within is not None:
            return await on(spec.within)
        async with opened(settings) as database:
            return await on(database)

    return asyncio.run(command())


def _chosen(worker: Worker, saga: str) -> tuple[HandlerSpec, type[Saga]]:
    """Return a saga of a worker, and the handler that runs it, by its name or queue."""
    sagas = sagas_of(worker)
    for spec, kind in sagas:
        if saga in (spec.name, spec.queue):
            return spec, kind
    known = ", ".join(spec.name for spec, _ in sagas) or "none"
    raise ConfigurationError(f"worker {worker.name!r} has no saga {saga!r}; it has {known}")


def _name(saga: str) -> str:
    return saga.rpartition(".")[2]


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text)
    if match is None:
        raise ConfigurationError(f"--older {text!r}: write a number of seconds, or 15m, 1h, 3d")
    return float(match[1]) * _UNITS[match[2] or "s"]


def due_text(seconds: float | None) -> str:
    """Say in how many seconds a saga is over its limit, or for how long it has been; nothing where it has none."""
    if seconds is None:
        return ""
    return f", due in {span(seconds)}" if seconds >= 0 else f", over its limit for {span(-seconds)}"
