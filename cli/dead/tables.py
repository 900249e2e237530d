"""Dead letters on a terminal: tables for people, JSON for programs, nothing that could drive the terminal."""

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from ...dead_letters import DeadQueue, Group, Letter, Operation
from ...dead_letters.view import age, body_text, counts_of, scaled, state_of, when
from ...telemetry import neutral
from ..words import plain

_BARS = " ▁▂▃▄▅▆▇█"


def print_json_with(about: dict[str, Any], name: str, many: Iterable[dict[str, Any]]) -> None:
    """Print a JSON document with a long list under `name`, each of its items a line, written as they come."""
    print(json.dumps(about, default=plain)[:-1] + f', "{name}": [', end="")
    for n, one in enumerate(many):
        print("," if n else "", json.dumps(one, default=plain), sep="\n", end="")
    print("\n]}")


def queues_table(queues: Iterable[DeadQueue]) -> Table:
    table = Table("queue", "letters", "oldest", "")
    for queue in queues:
        held = "being read by another tool" if queue.is_read else ""
        table.add_row(neutral(queue.queue), str(queue.letters), age(queue.oldest) if queue.letters else "", held)
    return table


def groups_table(groups: Iterable[Group]) -> Table:
    """Show what letters died of: the error and those behind it, where, and when, as a little chart."""
    table = Table("fingerprint", "letters", "reason", "what and when", show_lines=True)
    for column in table.columns[:3]:
        column.no_wrap = True
    for group in groups:
        where = ", ".join(word for words in (group.handlers, group.event_types, group.workers) for word in words)
        lines = (
            neutral(f"{' < '.join(_short(one) for one in reversed(group.chain))}: {group.error_message}", 160),
            neutral(where, 120),
            f"{chart(group.trend)} {age(group.first_seen)} to {age(group.last_seen)} ago",
        )
        table.add_row(neutral(group.fingerprint), f"{group.count:,}", neutral(group.reason), "\n".join(lines))
    return table


def chart(counts: tuple[int, ...]) -> str:
    """Draw counts as bars, a character each."""
    return "".join(_BARS[height] for height in scaled(counts, len(_BARS) - 1))


def letters_table(letters: Iterable[Letter]) -> Table:
    table = Table("id", "event", "reason", "error", "attempt", "died", "bytes")
    for letter in letters:
        table.add_row(
            letter.key,
            neutral(letter.event_type, 60),
            neutral(letter.reason),
            neutral(f"{letter.error_type}: {letter.error_message}", 80),
            str(letter.attempt),
            age(letter.failed_at),
            f"{len(letter.message.body):,}",
        )
    return table


def print_letter(letter: Letter, at: Console) -> None:
    """Print all that is known of one letter."""
    facts = {
        "event": f"{letter.event_type} v{letter.version}",
        "event id": letter.event_id,
        "reason": letter.reason,
        "died in": letter.target,
        "handler": letter.handler,
        "attempt": str(letter.attempt),
        "first failed": _moment(letter.first_failed_at),
        "died": _moment(letter.failed_at),
        "worker": letter.worker,
        "group": letter.fingerprint,
        "came back from": letter.replayed,
        "delivered and returned": str(letter.returns),
    }
    at.print(f"letter {letter.key}")
    for name, value in facts.items():
        if value:
            at.print(f"  {name:<23}{neutral(value, 500)}", soft_wrap=True)
    at.print(f"\n{neutral(f'{letter.error_type}: {letter.error_message}', 4000)}", soft_wrap=True)
    if letter.traceback:
        at.print(neutral(letter.traceback, 40_000, lines=True), soft_wrap=True)
    at.print("\nheaders")
    for name, value in letter.message.headers.items():
        if not name.startswith("holdfast-"):
            at.print(f"  {neutral(name, 200)}: {neutral(str(value), 1000)}", soft_wrap=True)
    at.print(f"\nbody ({len(letter.message.body):,} bytes)")
    at.print(body_text(letter.message.body)[0], soft_wrap=True)


def operation_line(operation: Operation) -> str:
    """Write in one line how an operation stands."""
    detail = f" ({neutral(operation.detail, 500)})" if operation.detail else ""
    return f"{operation.id}: {operation.state}{detail}: {counts_of(operation, ' · ')}"


def operations_table(operations: Iterable[tuple[Operation, bool]]) -> Table:
    """List operations, each with whether some process carries it out."""
    table = Table("operation", "queue", "state", "letters", "how they stand", "begun", "by")
    for operation, is_running in operations:
        table.add_row(
            operation.id, neutral(operation.queue), state_of(operation, is_running=is_running), str(operation.total),
            counts_of(operation), age(operation.begun), neutral(operation.by),
        )  # fmt: skip
    return table


def _short(error_type: str) -> str:
    """`CardDeclined` of `shop.payments.CardDeclined`."""
    return error_type.rpartition(".")[2]


def _moment(moment: datetime | None) -> str:
    return "" if moment is None else f"{when(moment)} ({age(moment)} ago)"
