"""The states of a key, against a model of one partition: a queue, a ledger, and owners that are lost at any step."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.consumer.ordering.keys import LETTER, Item, KeyLine, Park, Run

EventId = tuple[str, int]


@dataclass(eq=False)
class Stored:
    """A message of the queue (position None) or of the ledger."""

    event: EventId
    position: int | None = None
    revision: int = 0
    epoch: int = 0
    is_stub: bool = False
    is_letter: bool = False


@dataclass(eq=False)
class Partition:
    """What outlives an owner, and the owner. `steps` are what it is doing, one step at a time."""

    luck: random.Random
    queue: list[Stored] = field(default_factory=list)
    ledger: list[Stored] = field(default_factory=list)
    letters: list[EventId] = field(default_factory=list)
    handled: list[EventId] = field(default_factory=list)
    parked_most: int = 0
    now: float = 0.0
    epoch: int = 0
    is_calm: bool = False
    lines: dict[str, KeyLine] = field(default_factory=dict)
    steps: list[Iterator[Stored | None]] = field(default_factory=list)
    unsent: dict[Iterator[Stored | None], Stored] = field(default_factory=dict)
    taken: int = 0
    position: int = 1

    def change_owner(self) -> None:
        """The owner is lost with all that it was doing; copies on their way arrive now, or when it is too late."""
        for copy in self.unsent.values():
            if self.luck.random() < 0.5:
                self.ledger.append(copy)
        self.lines, self.steps, self.unsent, self.taken = {}, [], {}, 0
        self.epoch += 1
        self.position = 1 + max((one.position or 0 for one in self.ledger), default=0)
        for stored in sorted(self.ledger, key=lambda stored: stored.is_letter):
            self.enter(stored)

    def enter(self, stored: Stored) -> None:
        key = stored.event[0]
        names = ((key, str(stored.event[1])),) if stored.is_letter else ()
        item = self.item_of(stored)
        item.replays = names
        for other in self.line(key).enter(item):
            self.remove(other)

    def item_of(self, stored: Stored) -> Item:
        name = (stored.event[0], str(stored.event[1]))
        due = 0.0 if stored.position is None or stored.is_stub or stored.is_letter else self.now + 1
        return Item(0, name, stored.position, stored.revision, due, is_stub=stored.is_stub, body=stored)

    def line(self, key: str) -> KeyLine:
        return self.lines.setdefault(key, KeyLine())

    def remove(self, item: Item) -> None:
        """Take a message off the queue or the ledger."""
        held = self.queue if item.position is None else self.ledger
        if item.position is None:
            self.taken -= 1
        held.remove(item.body)

    def deliver(self) -> None:
        """Hand the next message of the queue to the owner."""
        if self.taken < len(self.queue):
            stored = self.queue[self.taken]
            self.taken += 1
            item = self.item_of(stored)
            if not self.line(stored.event[0]).arrive(item):
                self.remove(item)

    def begin(self) -> None:
        """Let each key begin what it may."""
        for key, line in self.lines.items():
            while (step := line.step(self.now)) is not None:
                match step:
                    case Run(item):
                        self.steps.append(self.running(line, item))
                    case Park(item):
                        self.steps.append(self.parking(line, item))
            assert len({id(one) for one in (line.running, line.parking) if one is not None}) <= 2, key
        self.parked_most = max(self.parked_most, len(self.ledger))

    def running(self, line: KeyLine, item: Item) -> Iterator[Stored | None]:
        event = item.body.event
        yield None
        if event not in self.handled:
            outcome = "ok" if self.is_calm else self.luck.choice(("ok", "ok", "fails", "dies"))
            if outcome == "ok":
                self.handled.append(event)
            elif outcome == "fails":
                yield from self.writing(item)
            else:
                self.letters.append(event)
                yield None
                yield from self.writing(item, is_stub=True)
            yield None
        self.remove(item)
        line.leave(item)

    def parking(self, line: KeyLine, item: Item) -> Iterator[Stored | None]:
        yield from self.writing(item)
        yield None
        self.remove(item)
        line.leave(item)

    def writing(self, item: Item, *, is_stub: bool = False) -> Iterator[Stored | None]:
        position = item.position
        if position is None:
            position, self.position = self.position, self.position + 1
        copy = Stored(item.body.event, position, item.revision + 1, self.epoch, is_stub)
        yield copy
        self.ledger.append(copy)
        self.enter(copy)

    def advance(self) -> None:
        """Do one step of what the owner does."""
        step = self.luck.choice(self.steps)
        self.unsent.pop(step, None)
        try:
            copy = next(step)
        except StopIteration:
            self.steps.remove(step)
            return
        if copy is not None:
            self.unsent[step] = copy

    def replay(self) -> None:
        """An operator replays a letter: it goes to the ledger."""
        event = self.letters.pop(self.luck.randrange(len(self.letters)))
        letter = Stored(event, LETTER, is_letter=True)
        self.ledger.append(letter)
        self.enter(letter)

    def repeat(self, published: list[EventId]) -> None:
        """The intake is lost: the next one publishes the newest events again, and a copy of the old one comes late."""
        key = self.luck.choice("abc")
        again = [event for event in published if event[0] == key]
        newest = published[len(published) - self.luck.randrange(6) :] if len(published) > 5 else published
        self.queue += [Stored(event) for event in [*newest, *again[-3:][:1]]]

    def act(self) -> None:
        """Something happens."""
        self.begin()
        choices = [self.deliver, self.deliver]
        choices += [self.advance] * 4 if self.steps else []
        choices += [self.replay] if self.letters and (self.is_calm or self.luck.random() < 0.2) else []
        self.luck.choice(choices)()
        self.now += 0.2


def history(luck: random.Random, *, events: int, changes: int, repeats: int = 0) -> Partition:
    """Let events of three keys through a partition whose owners, and whose intakes, are lost now and then; then let it
    come to rest."""
    partition = Partition(luck)
    partition.change_owner()
    numbers, published = dict.fromkeys("abc", 0), list[EventId]()
    for _ in range(events):
        key = luck.choice("abc")
        published.append((key, numbers[key]))
        partition.queue.append(Stored(published[-1]))
        numbers[key] += 1
        for _ in range(luck.randrange(8)):
            partition.act()
        if luck.random() < changes / events:
            partition.change_owner()
        if luck.random() < repeats / events:
            partition.repeat(published)
    partition.is_calm = True
    for _ in range(20_000):
        if not (partition.queue or partition.ledger or partition.steps):
            return partition
        partition.act()
    raise AssertionError(f"it does not come to rest: {partition.ledger}, {partition.lines}")


@settings(max_examples=400)
@given(st.integers(0, 2**32), st.integers(1, 60), st.integers(0, 12))
def test_each_event_is_handled_in_its_order_whoever_is_lost_at_whatever_step(
    seed: int, events: int, changes: int
) -> None:
    partition = history(random.Random(seed), events=events, changes=changes)

    for key in "abc":
        numbers = [number for name, number in partition.handled if name == key]
        assert numbers == [*range(len(numbers))]
    assert len(partition.handled) == events


@settings(max_examples=400)
@given(st.integers(0, 2**32), st.integers(1, 60), st.integers(0, 6), st.integers(1, 6))
def test_each_event_is_handled_in_its_order_whatever_its_intake_repeats(
    seed: int, events: int, changes: int, repeats: int
) -> None:
    partition = history(random.Random(seed), events=events, changes=changes, repeats=repeats)

    for key in "abc":
        numbers = [number for name, number in partition.handled if name == key]
        assert numbers == [*range(len(numbers))]
    assert len(partition.handled) == events


def test_a_stub_that_comes_from_the_queue_is_written_to_the_ledger_and_never_run() -> None:
    line = KeyLine()
    stub = Item(1, ("", "first"), is_stub=True)
    line.arrive(stub)
    line.arrive(Item(2, ("", "second")))

    step = line.step(0.0)
    meanwhile = line.step(0.0)
    line.enter(Item(3, ("", "first"), 1, revision=1, is_stub=True))
    line.leave(stub)

    assert step == Park(stub) and meanwhile is None
    assert line.is_held


def test_events_behind_one_that_waits_are_parked_one_after_the_other() -> None:
    line = KeyLine()
    line.enter(Item(1, ("", "first"), 1, due=10.0))
    second, third = Item(2, ("", "second")), Item(3, ("", "third"))
    line.arrive(second)
    line.arrive(third)

    step = line.step(0.0)
    meanwhile = line.step(0.0)

    assert step == Park(second) and meanwhile is None


def test_a_time_that_comes_while_its_key_is_being_parked_is_not_forgotten() -> None:
    line = KeyLine()
    first, second = Item(1, ("", "first"), 1, due=10.0), Item(2, ("", "second"))
    line.enter(first)
    line.arrive(second)
    line.step(0.0)

    assert line.step(11.0) == Run(first)


def test_an_event_whose_copy_is_in_the_ledger_is_not_taken_again() -> None:
    line = KeyLine()
    line.enter(Item(1, ("", "first"), 1, revision=1))

    assert not line.arrive(Item(2, ("", "first")))


def test_of_two_copies_the_newer_one_stays_whichever_came_first() -> None:
    old, new = Item(1, ("", "first"), 7, revision=1), Item(2, ("", "first"), 7, revision=2)

    forwards, backwards = KeyLine(), KeyLine()

    assert [forwards.enter(old), forwards.enter(new)] == [[], [old]]
    assert [backwards.enter(new), backwards.enter(old)] == [[], [old]]


def test_events_whose_ids_are_guesses_are_all_kept() -> None:
    line = KeyLine()

    assert line.arrive(Item(1)) and line.arrive(Item(2))
    assert len(line.lane) == 2


def test_a_full_ledger_lets_the_chain_run_and_nothing_else() -> None:
    line = KeyLine()
    head = Item(1, ("", "first"), 1, due=5.0)
    line.enter(head)
    line.arrive(Item(2, ("", "second")))

    assert line.step(0.0, is_full=True) is None
    assert line.step(5.0, is_full=True) == Run(head)


def test_a_key_goes_on_when_its_dead_letter_is_skipped() -> None:
    line = KeyLine()
    stub, behind = Item(1, ("", "dead"), 1, is_stub=True), Item(2, ("", "next"), 2)
    line.enter(stub)
    line.enter(behind)

    held = line.step(0.0)
    skipped = line.pass_over()

    assert (held, skipped) == (None, stub)
    assert line.step(0.0) == Run(behind)


def test_a_replayed_letter_that_dies_again_holds_its_key_again() -> None:
    line = KeyLine()
    line.enter(Item(1, ("", "dead"), 5, revision=3, is_stub=True))
    letter = Item(2, ("", "dead"), LETTER, replays=(("", "dead"),))
    line.enter(letter)
    line.step(0.0)

    again = line.enter(Item(3, ("", "dead"), LETTER, revision=letter.revision + 1, is_stub=True))
    line.leave(letter)

    assert again == [] and line.is_held


class Compared(Item):
    """An item that counts how often it is compared with another."""

    __slots__ = ()
    times = 0

    def __eq__(self, other: object) -> bool:
        Compared.times += 1
        return self is other

    __hash__ = Item.__hash__


def test_an_entry_leaves_a_long_chain_without_a_look_at_the_others() -> None:
    line = KeyLine()
    items = [Compared(number, ("", str(number)), number) for number in range(1, 1001)]
    for item in items:
        line.enter(item)

    newer = [Compared(2000 + item.tag, item.event, item.position, revision=1) for item in items]
    superseded = [line.enter(item) for item in newer]

    assert superseded == [[item] for item in items] and line.chain == newer
    assert Compared.times == 0
