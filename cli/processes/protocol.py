"""What a supervisor and its children say to each other: a child's assignment, and what it reports."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a child is to run. `figures` and `channel` are open file descriptors: the memory it counts in, and the
    socket it reports on, whose end tells it that its parent is gone."""

    target: str
    number: int
    concurrency: int | None
    only: tuple[str, ...]
    figures: int
    channel: int

    def as_text(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Self:
        values = json.loads(text)
        return cls(**{**values, "only": tuple(values["only"])})


@dataclass(frozen=True, slots=True)
class Report:
    """What a child says of itself. `owner` is its incarnation in the claim store, `relays` are the tokens of its relays
    in their databases, `failed` why it could not start."""

    ready: bool = False
    missing: tuple[str, ...] = ("starting",)
    still: float = 0.0
    owner: str | None = None
    relays: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()

    def as_line(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"


class Reports:
    """Puts a stream together again."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Report]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            values = json.loads(line)
            yield Report(**values | {name: tuple(values[name]) for name in ("missing", "relays", "failed")})
