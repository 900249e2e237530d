"""What a change of a schema means, and whom it hurts. The table in docs/events.md is this table."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Side: TypeAlias = Literal["producers", "consumers"]


@dataclass(frozen=True, slots=True)
class Rule:
    """A kind of change. `hurts` are those who must not meet it: producers that still write the old form (and events
    on their way), because the new program cannot read it; consumers of the old form, because they cannot read the new.
    """

    change: str
    hurts: tuple[Side, ...]
    example: str


PRODUCERS: tuple[Side, ...] = ("producers",)
CONSUMERS: tuple[Side, ...] = ("consumers",)
BOTH: tuple[Side, ...] = ("producers", "consumers")

RULES: tuple[Rule, ...] = (
    Rule("a version added", (), "`order.created` version 2 beside version 1"),
    Rule("a version removed", PRODUCERS, "version 1 and its class are gone"),
    Rule("an optional field added", (), '`note: str = ""`'),
    Rule("an optional field removed", (), '`note: str = ""` is gone'),
    Rule("a required field added", PRODUCERS, "`currency: str`"),
    Rule("a required field removed", CONSUMERS, "`currency: str` is gone"),
    Rule("a field made required", PRODUCERS, '`note: str = ""` to `note: str`'),
    Rule("a field made optional", CONSUMERS, '`note: str` to `note: str = ""`'),
    Rule("a type widened", CONSUMERS, "`int` to `float`, `str` to `str | None`"),
    Rule("a type narrowed", PRODUCERS, "`float` to `int`, `str | None` to `str`"),
    Rule("a type changed", BOTH, "`int` to `str`"),
    Rule("an enum member added", CONSUMERS, '`Literal["a"]` to `Literal["a", "b"]`'),
    Rule("an enum member removed", PRODUCERS, '`Literal["a", "b"]` to `Literal["a"]`'),
    Rule("enum members exchanged", BOTH, '`Literal["a"]` to `Literal["b"]`'),
    Rule("a limit loosened", CONSUMERS, "`max_length=10` to `max_length=20`, a pattern or format dropped"),
    Rule("a limit tightened", PRODUCERS, "`max_length=20` to `max_length=10`, a pattern or format added"),
    Rule("a limit changed", BOTH, "`datetime` to `date`, another pattern"),
    Rule("something that cannot be compared", BOTH, "two schemas that differ in words this program does not know"),
)

_BY_CHANGE = {rule.change: rule for rule in RULES}


def rule(change: str) -> Rule:
    """The rule for a change."""
    return _BY_CHANGE[change]


def rules_table() -> str:
    """The rules as a Markdown table."""
    rows = ["| change | example | for producers | for consumers |", "|---|---|---|---|"]
    for one in RULES:
        marks = ["**breaks**" if side in one.hurts else "fine" for side in BOTH]
        rows.append(f"| {one.change} | {one.example.replace('|', chr(92) + '|')} | {marks[0]} | {marks[1]} |")
    return "\n".join(rows)
