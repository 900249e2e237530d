"""Dead letters on a terminal: tables for people, JSON for programs, nothing that could drive the terminal."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from itertools import islice
from typing import Any

from rich.console import Console
from rich.table import Table

from ...dead_letters import DeadQueue, Group, Index, Letter, Note, Operation, Selection
from ...dead_letters.view import age, body_text, counts_of, facts_of, header_text, letter_json, scaled
from ...events import ConfigurationError
from ...telemetry import neutral
from ..words import console, plain, print_json

_SHOWN = 20
_BARS = " ▁▂▃▄▅▆▇█"


def print_json_with(about: dict[str, Any], name: str, many: Iterable[dict[str, Any]]) -> None:
    """Print a JSON document with a long list under `name`, each of its items a line, written as they come."""
    print(json.dumps(about, default=plain)[:-1] + f', "{name}": [', end="")
    for n, one in enumerate(many):
        print("," if n else "", json.dumps(one, default=plain), sep="\n", end="")
    print("\n]}")


def queues_table(queues: Iterable[DeadQueue]) -> Table:
    table = Table("queue", "letters", "oldest", "state")
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
            f"{chart(group.trend)} {_ages(group)} ago",
        )
        table.add_row(neutral(group.fingerprint), f"{group.count:,}", neutral(group.reason), "\n".join(lines))
    return table


def chart(counts: tuple[int, ...]) -> str:
    """Draw counts as bars, a character each."""
    return "".join(_BARS[height] for height in scaled(counts, len(_BARS) - 1))


def show_queue(name: str, index: Index, selection: Selection, notes: Mapping[str, Note], *, as_json: bool) -> None:
    """Print the selected letters of a queue by what they died of, and the first of them one by one."""
    groups, total = index.groups(selection), index.count(selection)
    if as_json:
        noted = {kind: note.text for kind, note in notes.items()}
        about = {"queue": name, "groups": [asdict(group) for group in groups], "notes": noted}
        print_json_with(about, "letters", map(letter_json, index.letters(selection)))
        return
    at = console()
    at.print(f"{name}: {total:,} letter(s), read {age(index.read_at)} ago")
    if total:
        at.print(groups_table(groups))
        at.print(letters_table(islice(index.letters(selection), _SHOWN)))
    if total > _SHOWN:
        at.print(f"... and {total - _SHOWN:,} more; narrow them down, or use --json")


def show_letter(name: str, index: Index, key: str, *, as_json: bool) -> None:
    """Print all that is known of a letter, or which letters its id could mean. Raises `ConfigurationError` for none."""
    letters = list(index.letters(Selection(id=(key,), limit=20)))
    if not letters:
        raise ConfigurationError(f"there is no letter {key!r} in {name}")
    if as_json:
        print_json([letter_json(letter, whole=True) for letter in letters])
    elif len(letters) > 1:
        console().print(letters_table(letters))
    else:
        print_letter(letters[0], console())


def letters_table(letters: Iterable[Letter]) -> Table:
    table = Table("id", "event", "reason", "error", "attempt", "died", "bytes")
    for letter in letters:
        table.add_row(
            letter.key,
            neutral(letter.event_type, 60),
            neutral(letter.reason),
            neutral(f"{_short(letter.error_type)}: {letter.error_message}", 80),
            str(letter.attempt),
            age(letter.failed_at),
            f"{len(letter.message.body):,}",
        )
    return table


def print_letter(letter: Letter, at: Console) -> None:
    at.print(f"letter {letter.key}")
    for name, value in facts_of(letter).items():
        at.print(f"  {name:<23}{neutral(value, 500)}", soft_wrap=True)
    at.print(f"\n{neutral(f'{letter.error_type}: {letter.error_message}', 4000)}", soft_wrap=True)
    if letter.traceback:
        at.print(neutral(letter.traceback, 40_000, lines=True), soft_wrap=True)
    at.print("\nheaders")
    for name, value in letter.message.headers.items():
        if not name.startswith("holdfast-"):
            at.print(f"  {neutral(name, 200)}: {header_text(name, value)}", soft_wrap=True)
    at.print(f"\nbody ({len(letter.message.body):,} bytes)")
    at.print(body_text(letter.message.body)[0], soft_wrap=True)


def operation_line(operation: Operation) -> str:
    """Write in one line how an operation stands."""
    detail = f" ({neutral(operation.detail, 500)})" if operation.detail else ""
    return f"{operation.id}: {operation.status}{detail}: {counts_of(operation, ' · ')}"


def operations_table(operations: Iterable[Operation]) -> Table:
    table = Table("operation", "queue", "state", "letters", "how they stand", "begun", "by")
    for operation in operations:
        table.add_row(
            operation.id, neutral(operation.queue), operation.status, str(operation.total),
            counts_of(operation), age(operation.begun), neutral(operation.by),
        )  # fmt: skip
    return table


def _ages(group: Group) -> str:
    """`2 h to 10 s`, or `10 s` where the first and the last letter of a group are of one age."""
    return " to ".join(dict.fromkeys(map(age, (group.first_seen, group.last_seen))))


def _short(error_type: str) -> str:
    """`CardDeclined` of `shop.payments.CardDeclined`."""
    return error_type.rpartition(".")[2]
