"""The model of following, explored: every order of steps, with crashes, failures, duplicates, dead letters and replays.

A delivery is a generator that stops at each arrow of its life, and so is a relay that sends the first event. A path is
a list of choices; every path is walked, from the start to its end or to a state of the world that another path has been
in, until there are no more.
"""

from collections import Counter
from collections.abc import Callable, Coroutine, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import pytest

from holdfast.idempotency import Entry, MemoryBoard, progress_of

T = TypeVar("T")
Life = Generator[None, None, None]
RELAY = "relay"


@dataclass(frozen=True)
class Message:
    """An event in a queue, as one of its attempts. Attempt 0 is a dead letter that is still to be noted."""

    queue: str
    event: str
    attempt: int = 1
    cause: tuple[str, str] = ("", "")


@dataclass
class Shape:
    """Which events each queue's handler publishes, and which queues take an event; what may go wrong, and how often.

    With `relays`, a transaction writes the first event, and so many relays at once may send it. In an outage a relay
    does not reach the board. A flush empties it. `is_late`: a dead letter may be replayed before it is noted.
    `is_apart`: a completion and its mark are two steps, as in a cluster.
    """

    publishes: dict[str, tuple[str, ...]]
    listeners: dict[str, tuple[str, ...]]
    crashes: int = 0
    failures: int = 0
    duplicates: int = 0
    attempts: int = 2
    replays: int = 0
    relays: int = 0
    outages: int = 0
    flushes: int = 0
    is_late: bool = False
    is_apart: bool = False

    @property
    def is_exact(self) -> bool:
        """Whether a request never becomes unknown."""
        return not (self.outages or self.flushes or self.is_late)


class Path:
    """The choices of one walk: those of a prefix, then the first of what there is."""

    def __init__(self, prefix: Sequence[int]) -> None:
        self._prefix = prefix
        self.taken: list[tuple[int, int]] = []

    def choose(self, options: Sequence[T]) -> T:
        at = len(self.taken)
        choice = self._prefix[at] if at < len(self._prefix) else 0
        self.taken.append((choice, len(options)))
        return options[choice]

    @property
    def is_new(self) -> bool:
        """Whether it has left the one it was made from."""
        return len(self.taken) >= len(self._prefix)

    def next(self) -> list[int] | None:
        """The prefix of the walk that comes after this one."""
        taken = self.taken
        while taken and taken[-1][0] + 1 == taken[-1][1]:
            taken.pop()
        return None if not taken else [*(choice for choice, _ in taken[:-1]), taken[-1][0] + 1]


class World:
    """The queues, the claims and the board of one request, and what happened so far."""

    def __init__(self, shape: Shape, path: Path) -> None:
        self.shape, self.path = shape, path
        self.board = MemoryBoard(lambda: 0.0)
        self.ready: list[Message] = []
        self.lives: dict[Message, Life] = {}
        self.arrows: dict[Message, str] = {}
        self.dead: list[Message] = []
        self.completed: set[tuple[str, str]] = set()
        self.crashes, self.failures, self.duplicates = shape.crashes, shape.failures, shape.duplicates
        self.replays, self.outages, self.flushes = shape.replays, shape.outages, shape.flushes
        self.was_done = self.is_unsent = self.is_rolled_back = False

    def walk(self, known: set[Any]) -> str | None:
        """Walk one path to its end, and return the state of the request then; None where the rest of it is known."""
        if self.shape.relays:
            self.is_unsent = self.path.choose((True, False))
            self.is_rolled_back = not self.is_unsent
        else:
            self._open_root()
            self._publish_root()
        while steps := self._steps():
            self.path.choose(steps)()
            self.was_done = self.was_done or self._state() == "done"
            if self.path.is_new:
                if (here := self._here()) in known:
                    return None
                known.add(here)
        return self._state()

    def _open_root(self) -> None:
        root = [Entry(queue, "root", state="open") for queue in self.shape.listeners["root"]]
        run(self.board.open("r", root, cause=None, life=60))

    def _publish_root(self) -> None:
        self.ready += [Message(queue, "root") for queue in self.shape.listeners["root"]]

    def _here(self) -> tuple[Any, ...]:
        board = frozenset((entry.field, entry.state) for entry in run(self.board.read("r")))
        budget = (self.crashes, self.failures, self.duplicates, self.replays, self.outages, self.flushes)
        lives = frozenset((message, self.arrows[message]) for message in self.lives)
        said = (self.was_done, self.is_unsent, self.is_rolled_back)
        queues = (frozenset(Counter(self.ready).items()), lives, tuple(self.dead))
        return board, queues, frozenset(self.completed), budget, said

    def _steps(self) -> list[Callable[[], None]]:
        running = {(message.queue, message.event) for message in self.lives if message.attempt}
        free = [m for m in dict.fromkeys(self.ready) if (m.queue, m.event) not in running]
        steps: list[Callable[[], None]] = [partial(self._deliver, message) for message in free]
        steps += [partial(self._advance, message) for message in self.lives]
        if self.crashes:
            steps += [partial(self._crash, message) for message in self.lives]
        if self.ready and self.duplicates:
            steps.append(self._duplicate)
        if self.dead and self.replays:
            steps.append(self._replay)
        free_relays = [m for n in range(self.shape.relays) if (m := Message(RELAY, str(n))) not in self.lives]
        if self.flushes:
            steps.append(self._flush)
        if self.is_unsent and free_relays:
            steps.append(partial(self._begin, free_relays[0], self._relay(free_relays[0])))
        return steps

    def _deliver(self, message: Message) -> None:
        self.ready.remove(message)
        self._begin(message, self._life(message))

    def _begin(self, message: Message, life: Life) -> None:
        self.lives[message], self.arrows[message] = life, ""

    def _advance(self, message: Message) -> None:
        self.arrows[message] += "."
        try:
            next(self.lives[message])
        except StopIteration:
            del self.lives[message]

    def _crash(self, message: Message) -> None:
        self.crashes -= 1
        del self.lives[message]
        if message.queue != RELAY:
            self.ready.append(replace(message, attempt=message.attempt or self.shape.attempts))

    def _duplicate(self) -> None:
        self.duplicates -= 1
        self.ready.append(self.ready[0])

    def _replay(self) -> None:
        self.replays -= 1
        self.ready.append(replace(self.dead.pop(), attempt=1))

    def _flush(self) -> None:
        self.flushes -= 1
        self.board = MemoryBoard(lambda: 0.0)

    def _relay(self, message: Message) -> Life:
        """A relay sends the first event: it opens its entries, publishes it, and notes that it is sent."""
        if self.outages and self.path.choose((False, True)):
            self.outages -= 1
        else:
            self._open_root()
        yield
        self._publish_root()
        yield
        self.is_unsent = False

    def _life(self, message: Message) -> Life:
        """The life of a delivery, as the pipeline has it: an arrow before each step that outlives a crash."""
        identity = (message.queue, message.event)
        if identity in self.completed:
            self._mark(message, "completed")
            yield
            return
        if self.failures and self.path.choose((False, True)):
            self.failures -= 1
            self.arrows[message] += "failed"
            yield from self._fail(message)
            return
        assert not self.was_done, "an event is handled after its request was said to be done"
        yield
        children = [
            Message(queue, f"{message.event}.{kind}", 1, identity)
            for kind in self.shape.publishes.get(message.queue, ())
            for queue in self.shape.listeners[kind]
        ]
        if children or self.shape.is_apart:
            entries = [Entry(child.queue, child.event, state="open", cause=child.cause) for child in children]
            run(self.board.open("r", entries, cause=f"{message.queue}\0{message.event}", life=60))
        for child in children:
            yield
            self.ready.append(child)
        yield
        self.completed.add(identity)
        if self.shape.is_apart:
            yield
        self._mark(message, "completed" if children else "handled")
        yield

    def _fail(self, message: Message) -> Life:
        yield
        if message.attempt < self.shape.attempts:
            self._mark(message, "retrying")
            yield
            self.ready.append(replace(message, attempt=message.attempt + 1))
            yield
            return
        self.dead.append(message)
        if self.shape.is_late:
            late = replace(message, attempt=0)
            self._begin(late, self._note_failure(late))
            return
        yield from self._note_failure(message)

    def _note_failure(self, message: Message) -> Life:
        yield
        self._mark(message, "failed")
        yield

    def _mark(self, message: Message, step: Any) -> None:
        run(self.board.mark("r", Entry(message.queue, message.event, state=step, cause=message.cause), life=60))

    def _state(self) -> str:
        return progress_of(run(self.board.read("r")), 0.0).state


def run(step: Coroutine[Any, Any, T]) -> T:
    """Run what does not wait."""
    try:
        step.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError("a board in memory waits for nothing")


def ends(shape: Shape) -> Iterator[tuple[World, str]]:
    """Walk every path."""
    prefix: list[int] | None = []
    known: set[Any] = set()
    while prefix is not None:
        world = World(shape, path := Path(prefix))
        if (state := world.walk(known)) is not None:
            yield world, state
        prefix = path.next()


CHAIN = {"publishes": {"a": ("x",), "b": ("y",)}, "listeners": {"root": ("a",), "x": ("b",), "y": ("c",)}}
FORK = {"publishes": {"a": ("x",)}, "listeners": {"root": ("a",), "x": ("b", "c")}}
PAIR = {"publishes": {"a": ("x",)}, "listeners": {"root": ("a",), "x": ("b",)}}


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param(Shape(**CHAIN, crashes=1), id="a chain and a crash"),
        pytest.param(Shape(**PAIR, crashes=2), id="a pair and two crashes"),
        pytest.param(Shape(**PAIR, crashes=1, failures=1), id="a pair, a crash and a failure"),
        pytest.param(Shape(**PAIR, crashes=1, duplicates=1), id="a pair, a crash and a duplicate"),
        pytest.param(Shape(**PAIR, crashes=1, failures=1, attempts=1, replays=1), id="a pair, a dead letter, a replay"),
        pytest.param(Shape(**PAIR, failures=2, replays=1), id="a pair, a retry that dies, a replay"),
        pytest.param(Shape(**FORK, crashes=1), id="a fork and a crash"),
        pytest.param(Shape(**PAIR, relays=1, crashes=2), id="a relay, a pair and two crashes"),
        pytest.param(Shape(**PAIR, relays=2), id="two relays and a pair"),
        pytest.param(Shape(**PAIR, relays=1, crashes=1, outages=1), id="a relay, a crash and an outage"),
        pytest.param(Shape(**PAIR, relays=1, crashes=1, flushes=1), id="a relay, a crash and a flush"),
        pytest.param(Shape(**PAIR, failures=1, attempts=1, replays=1, is_late=True), id="a late dead letter, a replay"),
        pytest.param(Shape(**PAIR, crashes=2, is_apart=True), id="a cluster, a pair and two crashes"),
        pytest.param(Shape(**PAIR, crashes=1, duplicates=1, is_apart=True), id="a cluster, a crash and a duplicate"),
    ],
)
def test_on_every_path_done_is_said_at_the_end_and_not_before(shape: Shape) -> None:
    states = set[str]()

    for world, state in ends(shape):
        states.add(state)
        assert shape.flushes or world.was_done == (state == "done")
        if world.is_rolled_back:
            assert state == "unknown"
        elif shape.is_exact:
            assert state == ("failed" if world.dead else "done")

    assert "done" in states
