"""Two schemas of one type and version, before and after: what changed, and whom it hurts. The table in docs/events.md
is made from the rules here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from .fit import Fit, Misfit

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


_WORDS = {  # by what does not fit: if old events cannot be read, if new events cannot be read, if neither
    "type": ("a type narrowed", "a type widened", "a type changed"),
    "enum": ("an enum member removed", "an enum member added", "enum members exchanged"),
    "limit": ("a limit tightened", "a limit loosened", "a limit changed"),
    "unknown": ("something that cannot be compared",) * 3,
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One change. `old` and `new` are the schemas before and after, in short."""

    rule: Rule
    field: str
    old: str
    new: str

    def __str__(self) -> str:
        where = f"field {self.field}: " if self.field else ""
        return f"{where}{self.rule.change}: from {self.old} to {self.new}"


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Finding]:
    """Every change that somebody could notice, those that hurt first; not titles, descriptions and defaults."""
    unread_old = {(fault.path, fault.what): fault for fault in Fit(old, new).misfits()}
    unread_new = {(fault.path, fault.what): fault for fault in Fit(new, old).misfits()}
    faults = sorted({*unread_old, *unread_new})
    findings = [_finding(unread_old.get(fault), unread_new.get(fault)) for fault in faults]
    named = {finding.field for finding in findings}
    was, now = old.get("properties", {}), new.get("properties", {})
    for name in sorted({*was, *now} - named):
        if name not in was:
            findings.append(Finding(rule("an optional field added"), name, "nothing", short(now[name])))
        elif name not in now:
            findings.append(Finding(rule("an optional field removed"), name, short(was[name]), "nothing"))
    return sorted(findings, key=lambda finding: not finding.rule.hurts)


def _finding(unread_old: Misfit | None, unread_new: Misfit | None) -> Finding:
    match unread_old, unread_new:
        case Misfit("missing", path, was, now), None:
            change = "a required field added" if was is None else "a field made required"
            return Finding(rule(change), path, _field(was, required=False), _field(now, required=True))
        case None, Misfit("missing", path, now, was):
            change = "a required field removed" if now is None else "a field made optional"
            return Finding(rule(change), path, _field(was, required=True), _field(now, required=False))
        case Misfit(what, path, was, now), None:
            return Finding(rule(_WORDS[what][0]), path, short(was), short(now))
        case None, Misfit(what, path, now, was):
            return Finding(rule(_WORDS[what][1]), path, short(was), short(now))
        case Misfit(what, path, was, now), Misfit():
            return Finding(rule(_WORDS[what][2]), path, short(was), short(now))
        case _:
            raise AssertionError("a finding is made of at least one misfit")


def _field(schema: Any, *, required: bool) -> str:
    if schema is None:
        return "nothing"
    return f"{short(schema)}, required" if required else f"{short(schema)}, optional"


def short(schema: Any) -> str:
    """A schema in a few words: `integer`, `string (format date-time)`, `"a" or "b"`."""
    match schema:
        case {"$ref": str(name)}:
            return name.rpartition("/")[2]
        case {"anyOf": list(parts)} | {"oneOf": list(parts)}:
            return " or ".join(short(part) for part in parts)
        case {"const": value}:
            return repr(value)
        case {"enum": list(values)}:
            return " or ".join(map(repr, values))
        case {"type": "array", "items": dict(items)}:
            return f"array of {short(items)}{_limits(schema)}"
        case {"type": "object", "additionalProperties": dict(values)}:
            return f"object of {short(values)}{_limits(schema)}"
        case {"type": str(kind)}:
            return f"{kind}{_limits(schema)}"
        case _:
            return "anything"


def _limits(schema: Mapping[str, Any]) -> str:
    skipped = ("type", "title", "description", "default", "examples", "items", "prefixItems", "properties", "required")
    limits = [
        f"{word} {value}"
        for word, value in sorted(schema.items())
        if word not in (*skipped, "additionalProperties") and not word.startswith(("$", "x-event-"))
    ]
    return f" ({', '.join(limits)})" if limits else ""
