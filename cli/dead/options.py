"""The options of `holdfast dead`, and what makes a command of a function that works on dead letters."""

import inspect
import sys
from collections.abc import Awaitable, Callable, Iterable
from functools import wraps
from typing import Annotated, Any

import typer

from ..arguments import Json

QueueName = Annotated[
    str, typer.Argument(metavar="QUEUE", help="the handler's queue, or its dead-letter queue: billing.charge")
]
LetterId = Annotated[str, typer.Argument(metavar="ID", help="a letter's id, its beginning, or an event id")]
OneLetter = Annotated[str | None, typer.Argument(metavar="ID", help="a letter's id, its beginning, or an event id")]
OperationName = Annotated[str, typer.Argument(metavar="OPERATION", help="its name, as `dead operations` lists it")]
WorkerName = Annotated[
    str, typer.Argument(metavar="MODULE:WORKER", help="where the worker is that takes these events, such as app:worker")
]
Run = Annotated[bool, typer.Option("--run", help="also run the handler on each; what it publishes is caught")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="do not ask")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="only say which letters are meant")]
Force = Annotated[bool, typer.Option("--force", help="also events that have completed")]
Worn = Annotated[bool, typer.Option("--worn", help="read on although the broker may drop letters read this often")]
Cached = Annotated[bool, typer.Option("--cached", help="by the last reading; the queue is not read again")]
Target = Annotated[str | None, typer.Option("--to", metavar="QUEUE", help="replay to this queue")]
Wait = Annotated[float, typer.Option(min=0, help="seconds without a word after which outcomes are not waited for")]

_SELECTION: dict[str, Any] = {
    "id": Annotated[
        list[str] | None,
        typer.Option("--id", metavar="ID", help="a letter's id, its beginning, or its event id; repeatable"),
    ],
    "reason": Annotated[str | None, typer.Option(help="why it died: exhausted, unreadable, delivery-limit ...")],
    "type": Annotated[str | None, typer.Option("--type", metavar="TYPE", help="the event's type")],
    "fingerprint": Annotated[str | None, typer.Option(help="the group, or the beginning of its fingerprint")],
    "handler": Annotated[str | None, typer.Option("--handler", metavar="NAME", help="the handler it failed in")],
    "text": Annotated[str | None, typer.Option(metavar="TEXT", help="what the error says")],
    "payload": Annotated[str | None, typer.Option(metavar="WORDS", help="words that are in the body: order 4711")],
    "key": Annotated[str | None, typer.Option("--key", metavar="KEY", help="the key of the event's aggregate")],
    "correlation": Annotated[str | None, typer.Option(metavar="ID", help="the correlation id of a chain of events")],
    "since": Annotated[
        str | None, typer.Option(metavar="WHEN", help="died since: 15m, 2h, 3d or 2026-01-31T12:00 (UTC)")
    ],
    "until": Annotated[str | None, typer.Option(metavar="WHEN", help="died before")],
    "limit": Annotated[int | None, typer.Option(min=1, help="the first so many")],
}
_PACE: dict[str, Any] = {
    "rate": Annotated[float | None, typer.Option(min=0.01, help="letters per second")],
    "canary": Annotated[
        bool, typer.Option("--canary/--no-canary", help="1 letter, 10, the rest, while none fails again")
    ],
    "wait": Wait,
    "keep_going": Annotated[bool, typer.Option("--keep-going", help="do not stop when letters fail again")],
}
_SESSION: dict[str, Any] = {
    "any_queue": Annotated[bool, typer.Option("--any-queue", help="also queues that are not for dead letters")],
    "json": Json,
}
_GROUPS = {"selection": _SELECTION, "pace": _PACE, "session": _SESSION}
_DEFAULTS = {"canary": True, "wait": 60.0, "keep_going": False, "json": False, "any_queue": False}


def in_session(command: Callable[..., Awaitable[int]]) -> Callable[..., None]:
    """Make a Typer command of a function that returns its exit code. Its parameters `selection`, `pace` and `session`
    stand for the options that make up such a value; `session` is open while it runs."""
    ours = inspect.signature(command).parameters

    @wraps(command)
    def run(**values: Any) -> None:
        import asyncio

        from ...dead_letters import Pace, Selection
        from .session import Session, open_service

        def take(options: Iterable[str]) -> dict[str, Any]:
            return {option: values.pop(option) for option in options if option in values}

        if "selection" in ours:
            values["selection"] = Selection(tuple(values.pop("id") or ()), **take(_SELECTION))
        if "pace" in ours:
            values["pace"] = Pace(**take(_PACE))
        as_json, any_queue = values.pop("json"), values.pop("any_queue", False)

        async def with_session() -> int:
            async with open_service(any_queue=any_queue) as service:
                return await command(Session(service, as_json), **values)

        sys.exit(asyncio.run(with_session()))

    names_a_queue = bool({"queue", "queues", "to"} & ours.keys())
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = list[inspect.Parameter]()
    for one in sorted(ours.values(), key=lambda one: one.name == "session"):  # --json comes last
        for name, option in _GROUPS.get(one.name, {one.name: one.annotation}).items():
            default = one.default if one.name not in _GROUPS else _DEFAULTS.get(name)
            if name != "any_queue" or names_a_queue:
                parameters.append(inspect.Parameter(name, keyword, default=default, annotation=option))
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run
