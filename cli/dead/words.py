"""How dead letters read on a terminal: tables for people, JSON for programs, nothing that could drive the terminal."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from ...dead_letters import Forecast, Group, Letter, Operation, Place
from ...telemetry import neutral
from ..words import plain

_BARS = "▁▂▃▄▅▆▇█"
_BODY = 20_000


def age(moment: datetime | None, now: datetime | None = None) -> str:
    """`3 m`, `5 h`, `2 d`: how long ago."""
    if moment is None:
        return "?"
    seconds = max(0.0, ((now or datetime.now(UTC)) - moment).total_seconds())
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds:.0f} s"


def sparkline(counts: Iterable[int]) -> str:
    values = list(counts)
    most = max(values, default=0) or 1
    return "".join(_BARS[round(value / most * (len(_BARS) - 1))] if value else " " for value in values)


def print_json_with(told: dict[str, Any], name: str, many: Iterable[dict[str, Any]]) -> None:
    """The same with a long list under `name`, each of its items a line, written as they come."""
    print(json.dumps(told, default=plain)[:-1] + f', "{name}": [', end="")
    for n, one in enumerate(many):
        print("," if n else "", json.dumps(one, default=plain), sep="\n", end="")
    print("\n]}")


def places_table(places: Iterable[Place]) -> Table:
    table = Table("queue", "letters", "oldest", "")
    for place in places:
        held = "being read by another tool" if place.is_read else ""
        table.add_row(neutral(place.queue), str(place.letters), age(place.oldest) if place.letters else "", held)
    return table


def groups_table(groups: Iterable[Group]) -> Table:
    """What letters died of: the error and those behind it, where, and when, as a little chart."""
    table = Table("fingerprint", "letters", "reason", "what and when", show_lines=True)
    for column in table.columns[:3]:
        column.no_wrap = True
    for group in groups:
        where = ", ".join(word for words in (group.handlers, group.event_types, group.workers) for word in words)
        lines = (
            neutral(f"{' < '.join(_short(one) for one in reversed(group.chain))}: {group.error_message}", 160),
            neutral(where, 120),
            f"{sparkline(group.trend)} {age(group.first_seen)} to {age(group.last_seen)} ago",
        )
        table.add_row(neutral(group.fingerprint), f"{group.count:,}", neutral(group.reason), "\n".join(lines))
    return table


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
    """All there is to know of one letter."""
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
    at.print(neutral(body_text(letter.message.body), _BODY, lines=True), soft_wrap=True)


def body_text(body: bytes) -> str:
    """A body as text: JSON indented, other UTF-8 as it is, anything else in hexadecimal."""
    head = body[: 2 * _BODY]
    try:
        text = body.decode() if len(body) <= 2 * _BODY else head.decode(errors="ignore")
    except UnicodeDecodeError:
        return head[:4096].hex(" ", 2)
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return text


def operation_words(operation: Operation) -> str:
    """One line: how an operation stands."""
    counts = " · ".join(f"{count} {state}" for state, count in operation.counts.items() if count)
    detail = f" ({neutral(operation.detail, 500)})" if operation.detail else ""
    return f"{operation.id}: {operation.state}{detail}: {counts}"


def operations_table(operations: Iterable[tuple[Operation, bool]]) -> Table:
    table = Table("operation", "queue", "state", "letters", "how they stand", "begun", "by")
    for operation, is_running in operations:
        state = "interrupted" if operation.state == "running" and not is_running else operation.state
        counts = ", ".join(f"{count} {name}" for name, count in operation.counts.items() if count)
        table.add_row(
            operation.id, neutral(operation.queue), state, str(operation.total), counts, age(operation.begun),
            neutral(operation.by),
        )  # fmt: skip
    return table


def forecast_lines(found: Forecast) -> list[str]:
    lines = [f"{found.readable} would be read, {found.unreadable} would not"]
    lines += [
        f"  {finding.count} x {neutral(finding.error, 1000)} (for instance {finding.examples[0]})"
        for finding in found.findings
    ]
    return lines


def _short(error_type: str) -> str:
    """`CardDeclined` of `shop.payments.CardDeclined`."""
    return error_type.rpartition(".")[2]


def _moment(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment.isoformat(timespec='seconds')} ({age(moment)} ago)"
