"""Boards of followed requests: what has become of each event, in each queue that takes it.

    from        step                                                          to
    ----        ----                                                          --
    absent      its publisher, or the handler of its cause, is to publish it  open
    open        its own events are open: they may be published                published
    published   its outcome is durable                                        handled
    any other   its handler failed; it is dead                                retrying; failed
    any other   it was handled, and what it published may be on no board      lost
    handled     whatever comes later                                          handled

An event is open before it is published, and what it causes is open before it is handled itself: while anything of the
request is left to be done, something of it is open. This is the argument of Dijkstra and Scholten ("Termination
detection for diffusing computations", 1980), with derived ids in place of acknowledgements.

It assumes that every queue that takes an event is known when the event is published: its worker announces it when it
starts, and daily. Publishers look queues up at most once a second, and count those of the last 30 days (`boards.py`).
An event of a queue that was not known is on no board there: its request may be done before it is.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, NamedTuple, Protocol, TypeAlias, cast

State: TypeAlias = Literal["open", "published", "retrying", "failed", "handled", "lost"]
Step: TypeAlias = State | Literal["completed"]
"""A state to be in. An event that `completed`, now or before, is handled if what it published is on the board."""

LIFE: Final = 3600.0
"""Seconds a board outlives its last change, and the time for which an event waits."""

LISTENERS_LIVE: Final = 40 * 86400.0
"""Seconds a store keeps all listeners after one was announced: longer than any counts, so that its own age decides."""

MOST: Final = 10_000
"""How many entries a board has at most. One more, and the request is of unknown progress."""


class Entry(NamedTuple):
    """An event in one queue. `detail` and `at` (seconds since 1970) say more of the state: the attempt that is next and
    when, the reason it failed, when a delayed event is due. `cause` has the queue and the id of the event whose handler
    published it."""

    queue: str
    event_id: str
    event_type: str = ""
    state: Step = "open"
    detail: str = ""
    at: float | None = None
    cause: tuple[str, str] = ("", "")

    @property
    def field(self) -> str:
        """Its name on the board."""
        return f"{self.queue}\0{self.event_id}"

    @property
    def rest(self) -> str:
        """What the board keeps behind its state. Its cause comes last: it is looked for there."""
        due = "" if self.at is None else f"{self.at:.6f}"
        return "\0".join(("", self.event_type.replace("\0", ""), self.detail, due, *self.cause))


Mark: TypeAlias = tuple[str, Entry]
"""A request, and the entry on its board that takes a step."""


def read_entry(name: str, value: str) -> Entry:
    """Return the entry of that name and value."""
    queue, _, event_id = name.partition("\0")
    state, kind, detail, due, *cause = [*value.split("\0", 5), "", "", "", "", ""][:6]
    at = float(due) if due else None
    return Entry(queue, event_id, kind, cast("State", state), detail, at, (cause[0], cause[1]))


def step(old: str | None, new: Step) -> State | None:
    """Return the state after a step; None where nothing changes. The script of a store does the same.

    A board may have been made anew, or have lost its last writes, since an event published: it has what the event
    published only if the event is `published`.
    """
    if old == "handled":
        return None
    if new == "completed":
        return "handled" if old == "published" else "lost"
    return new


class Board(Protocol):
    """Where boards are kept. Every method may raise `StoreUnavailable`, and may be repeated."""

    @property
    def is_beside_claims(self) -> bool:
        """Whether `ClaimStore.complete` records a completion and a mark in one step. In a cluster they live apart."""
        ...

    async def open(self, request: str, entries: Sequence[Entry], *, cause: str | None, life: float) -> None:
        """Put on the board what is about to be published, unless it is on it already; `cause`, the field of the event
        whose handler publishes it, is then `published`. A board is made where there is no cause alone."""
        ...

    async def mark(self, request: str, entry: Entry, *, life: float) -> None:
        """Let an entry take a step. One that failed takes off what it opened and may never have published."""
        ...

    async def read(self, request: str) -> list[Entry]: ...

    async def forget(self, request: str | None, queue: str) -> None:
        """Take a queue off the board of one request, or off the listeners."""
        ...

    async def announce(self, queue: str, bindings: str) -> None:
        """Note what a queue is bound for."""
        ...

    async def listeners(self) -> Mapping[str, str]:
        """Return what each queue is bound for."""
        ...


class MemoryBoard:
    """See `Board`. `clock` gives seconds."""

    is_beside_claims = True

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._boards: dict[str, dict[str, str]] = {}
        self._ends: dict[str, float] = {}
        self._listeners: dict[str, str] = {}
        self._sweep_at = 1_000

    async def open(self, request: str, entries: Sequence[Entry], *, cause: str | None, life: float) -> None:
        board = self._find(request)
        if board is None and cause is not None:
            return
        board = self._boards.setdefault(request, {})
        if len(board) + len(entries) > MOST:
            board[""] = "lost"
        else:
            for entry in entries:
                board.setdefault(entry.field, entry.state + entry.rest)
        if cause is not None and (state := step(_state(board, cause), "published")) is not None:
            board[cause] = state + board.get(cause, "").removeprefix(_state(board, cause) or "")
        self._prolong(request, life)

    async def mark(self, request: str, entry: Entry, *, life: float) -> None:
        board, name = self._find(request), entry.field
        if board is None or (state := step(_state(board, name), entry.state)) is None:
            return
        board[name] = state + entry.rest
        if state == "failed":
            theirs = [n for n, value in board.items() if value.startswith("open\0") and value.endswith(f"\0{name}")]
            for n in theirs:
                del board[n]
        self._prolong(request, life)

    async def read(self, request: str) -> list[Entry]:
        return [read_entry(*item) for item in (self._find(request) or {}).items()]

    async def forget(self, request: str | None, queue: str) -> None:
        if request is None:
            self._listeners.pop(queue, None)
            return
        board = self._find(request) or {}
        for name in [name for name in board if name.partition("\0")[0] == queue]:
            del board[name]

    async def announce(self, queue: str, bindings: str) -> None:
        self._listeners[queue] = bindings

    async def listeners(self) -> Mapping[str, str]:
        return self._listeners

    def _find(self, request: str) -> dict[str, str] | None:
        if self._ends.get(request, 0.0) <= self._clock():
            self._boards.pop(request, None)
        return self._boards.get(request)

    def _prolong(self, request: str, life: float) -> None:
        now = self._clock()
        self._ends[request] = max(self._ends.get(request, 0.0), now + life)
        if len(self._ends) > self._sweep_at:
            for over in [known for known, end in self._ends.items() if end <= now]:
                del self._ends[over]
                self._boards.pop(over, None)
            self._sweep_at = 2 * len(self._ends) + 1_000


def _state(board: Mapping[str, str], name: str) -> str | None:
    value = board.get(name)
    return None if value is None else value.partition("\0")[0]
