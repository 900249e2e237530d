"""`holdfast keys`: what the owner of an ordered queue says of its keys, and what an operator tells it."""

import asyncio
from typing import Any

from ..config import LogSettings
from ..consumer.ordering.asking import ask_owner
from ..events import ConfigurationError
from ..telemetry import configure_logging
from .load import load_worker
from .reach import check_reach
from .words import console, print_json


def run_keys(target: str, handler: str, verb: str, key: str | None, *, as_json: bool) -> int:
    """Ask the owner of a handler's queue, and print its answer. Returns the exit code.

    Raises `ConfigurationError` for a handler that is not ordered, `HoldfastError` where no owner answers."""
    configure_logging(LogSettings(level="ERROR"))
    worker = load_worker(target)
    check_reach(worker.settings.broker)
    [spec] = worker.selected([handler])
    if spec.ordered is None:
        raise ConfigurationError(f"handler {handler!r} of worker {worker.name!r} is not ordered")

    answer = asyncio.run(ask_owner(worker.settings, spec.queue, verb, key))
    if as_json:
        print_json(answer)
    else:
        _print(answer, verb)
    return 1 if "error" in answer else 0


def _print(answer: dict[str, Any], verb: str) -> None:
    out = console()
    if verb in ("retry", "skip"):
        out.print(answer.get("done") or answer.get("error"), soft_wrap=True)
        return
    if verb == "show":
        for event in answer.get("events", []):
            out.print(f"{event['event_type']} {event['event_id']}{_why(event)}", soft_wrap=True)
        out.print(answer.get("error") or f"{answer['key']}: {answer['state']}, {answer['waiting']} wait")
        return
    for line in answer["keys"]:
        due = f", due {line['due']}" if line["due"] else ""
        out.print(f"{line['key']}: {line['state']}, {line['waiting']} wait{due}{_why(line)}", soft_wrap=True)
    out.print(f"{len(answer['keys']) + answer['more']} keys wait; the fence is {answer['fence']}")


def _why(event: dict[str, Any]) -> str:
    where = "dead" if event["is_dead"] else f"attempt {event['attempt']}"
    return f" ({where}: {event['cause']})" if event["cause"] else f" ({where})"
