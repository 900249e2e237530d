"""A tenure: an owner and the events it has in hand, until it releases its queue or loses it."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import assert_never

from ...broker import Delivery, Pause, Timer, dead_letter_queue
from ...events import Message
from ...events import headers as h
from ...telemetry import Paused, Resumed
from ..in_flight import InFlight
from ..outcome import DeadLetter, Postpone
from ..settle import publish_copy
from .backlog import Backlog
from .commands import obey
from .desk import Desk
from .keys import Item, KeyLine, Park, Run
from .ledger import Entry, event_name, is_mark, item_of, mark, read_entry
from .seat import PASSED_ON, Came, Seat
from .turns import Turn
from .writer import Writer

_AT_ONCE = 100  # entries that are written anew at once: one confirm each, and thousands of them
_BUSY = Pause(0.1, 1.0, jitter=0.2)  # between two claims of an event that another worker holds


class Tenure:
    """The time in which one worker owns a queue from which events run, and what it has in hand."""

    def __init__(self, desk: Desk, seat: Seat) -> None:
        self.desk = desk
        self.seat = seat
        self.is_paused = False
        self._writer = Writer(desk, seat.epoch, seat.lost)
        self._lines: dict[str, KeyLine] = {}
        self._timers: dict[KeyLine, Timer] = {}
        self._is_full = False
        self._full_since = 0.0

    @property
    def is_open(self) -> bool:
        """Whether this worker owns the queue still."""
        return self.seat.is_open

    @property
    def lines(self) -> dict[str, KeyLine]:
        """The keys of which something is in hand."""
        return self._lines

    def begin(self, backlog: Backlog, waiting: Iterable[Came]) -> None:
        """Start with what earlier owners left, and what has come from the queue meanwhile."""
        self.seat.rewrite_now_and_then(self._rewrite)
        self.desk.part.owned, self.desk.part.in_ledger = 1, backlog.count
        self._writer.note(backlog.position)
        self._lines, alone = backlog.lines, backlog.lines.pop("", KeyLine())
        for line in self._lines.values():
            self._count(line, 0, False)
        for item in backlog.superseded:
            self._remove(item)
        for item in alone.chain:
            self._pump("", self._enter("", item))
        for entry in backlog.others:
            self.receive(entry)
        for message, tag, redelivered in waiting:
            self.take(message, tag, redelivered)
        self._pump_all()

    def end_all(self) -> None:
        """The queue is another worker's now, or nobody's: start nothing, settle nothing."""
        if not self.is_open:
            return
        self.seat.end()
        for timer in self._timers.values():
            timer.cancel()
        self._set_full(is_full=False)

    def pause(self) -> None:
        """Start nothing more. What runs ends as ever."""
        self.is_paused = True
        self.desk.lane.drop(self._has_turn)

    def running(self, flights: Mapping["asyncio.Task[None]", InFlight]) -> set["asyncio.Task[None]"]:
        """Return the handler's flights that are from here."""
        return {task for task, flight in flights.items() if self._has_turn(flight.delivery)}

    def take(self, message: Message, tag: int, redelivered: bool) -> None:
        """Receive a message of the handler's queue."""
        if is_mark(message):
            self.seat.queue.remove(tag)
            return
        desk = self.desk
        incoming = desk.read(message)
        now = desk.tools.clock.time()
        item = Item(tag, event_name(incoming), body=message, redelivered=redelivered, at=now)
        key = ""
        if not desk.is_own:
            entry = read_entry(message, tag, redelivered)  # as the intake has written it
            key, item.is_stub = entry.key, entry.kind == "stub"
            if entry.epoch >= self.seat.epoch:
                self._rise(entry.epoch)
                return
        key = key or desk.ordered.key_of(incoming, desk.spec.read)
        desk.figures.received += 1
        desk.part.in_hand += 1
        line = self._line(key)
        if line.arrive(item):
            self._pump(key, line)
        else:
            self._remove(item)

    def receive(self, entry: Entry) -> None:
        """Receive a message of the ledger. What an earlier owner wrote and comes only now has its original in the
        handler's queue still, or in the ledger."""
        match entry.kind:
            case "record" | "sentinel" | "poke":
                self.seat.pass_mark(entry)
            case "parked" | "stub" if entry.epoch != self.seat.epoch:
                self.seat.ledger.remove(entry.tag)
            case "parked" | "stub" | "letter":
                self.desk.part.in_ledger += 1
                line = self._enter(entry.key, item_of(entry, entry.message, self.desk.read, self.desk.tools.clock))
                self._writer.arrived(entry.message)
                self._pump(entry.key, line)
            case "command":
                self.seat.spawn(self._obey(entry))
            case _:
                assert_never(entry.kind)

    def end(self, turn: Turn) -> bool:
        """Take the event of a turn off its queue. Returns False if the tenure is over."""
        if not self.is_open:
            return False
        removed = self._remove(turn.item)
        self._leave(turn.line, turn.item)
        self._pump(turn.key, turn.line)
        return removed

    def wait(self, turn: Turn) -> bool:
        """Let the event of a turn wait a little, as the first of its key. Returns False if the tenure is over."""
        if not self.is_open:
            return False
        item = turn.item
        pause = _BUSY.seconds(item.asked, self.desk.tools.luck())
        item.asked += 1
        item.waited += pause
        turn.line.wait(item, self.desk.tools.clock.time() + pause)
        self._pump(turn.key, turn.line)
        return True

    async def postpone(self, turn: Turn, flight: InFlight, ending: Postpone, traced: str | None) -> None:
        """Return once the next attempt waits in the ledger, before all later events of its key. Raises
        `OwnershipLost`."""
        await self._writer.postpone(turn.key, turn.item, flight.incoming, ending, traced)

    async def hold(self, turn: Turn, flight: InFlight, ending: DeadLetter) -> None:
        """Return once the key is held for an event whose letter is in the dead-letter queue. Raises `OwnershipLost`."""
        if self.desk.ordered.when_dead == "hold" and turn.key:
            await self._writer.hold(turn.key, turn.item, flight.incoming, ending)

    def pump(self, key: str) -> None:
        """Do what is to be done next for a key."""
        if (line := self._lines.get(key)) is not None:
            self._pump(key, line)

    def skip(self, key: str) -> bool:
        """Let a key go on without the dead letter that holds it. Returns False if none does."""
        line = self._lines.get(key)
        parked = 0 if line is None else len(line.chain)
        stub = None if line is None else line.pass_over()
        if line is None or stub is None:
            return False
        self._count(line, parked, True)
        self._remove(stub)
        self._pump(key, line)
        return True

    def _rise(self, fence: int) -> None:
        """Leave to an owner with a higher fence than that of the owners before there were partitions."""
        if not self.is_paused:
            self.pause()
            self.seat.spawn(self._leave_to(fence))

    async def _leave_to(self, fence: int) -> None:
        await publish_copy(self.desk.tools, self.desk.spec.queue, "", mark(self.desk.ledger, "record", fence))
        self.seat.leave(PASSED_ON)

    def _has_turn(self, delivery: Delivery) -> bool:
        return isinstance(delivery.consumer, Turn) and delivery.consumer.tenure is self

    def _line(self, key: str) -> KeyLine:
        """Return the line of a key. An event without a key waits for nobody."""
        if not key:
            return KeyLine()
        return self._lines.setdefault(key, KeyLine())

    def _enter(self, key: str, item: Item) -> KeyLine:
        line = self._line(key)
        parked, was_held = len(line.chain), line.is_held
        superseded = line.enter(item)
        self._count(line, parked, was_held)
        for other in superseded:
            self._remove(other)
        return line

    def _leave(self, line: KeyLine, item: Item) -> None:
        parked, was_held = len(line.chain), line.is_held
        line.leave(item)
        self._count(line, parked, was_held)

    def _count(self, line: KeyLine, parked: int, was_held: bool) -> None:
        figures = self.desk.part
        figures.parked += len(line.chain) - parked
        figures.held += line.is_held - was_held
        is_full = figures.parked >= self.desk.ordered.parked
        if is_full != self._is_full:
            self._set_full(is_full=is_full)
            if not is_full:
                asyncio.get_running_loop().call_soon(self._pump_all)

    def _set_full(self, *, is_full: bool) -> None:
        if is_full == self._is_full:
            return
        desk, self._is_full = self.desk, is_full
        now, queue = desk.tools.clock.time(), desk.queue
        if is_full:
            self._full_since = now
            text = f"{desk.ledger} holds {desk.part.parked} events; {dead_letter_queue(desk.spec.queue)} says why"
            desk.tools.emit(Paused(queue, "parked", text))
        else:
            desk.tools.emit(Resumed(queue, "parked", now - self._full_since))

    def _remove(self, item: Item) -> bool:
        figures = self.desk.part
        if item.position is None:
            figures.in_hand -= 1
            return self.seat.queue.remove(item.tag)
        figures.in_ledger -= 1
        return self.seat.ledger.remove(item.tag)

    def _pump_all(self) -> None:
        for key, line in [*self._lines.items()]:
            self._pump(key, line)

    def _pump(self, key: str, line: KeyLine) -> None:
        if not self.is_open or self.is_paused:
            return
        clock = self.desk.tools.clock
        now = clock.time()  # read once: a timer of uvloop may ring a millisecond early
        if (timer := self._timers.pop(line, None)) is not None:
            timer.cancel()
        while (step := line.step(now, is_full=self._is_full)) is not None:
            match step:
                case Run(item):
                    self._run(key, line, item)
                case Park(item):
                    self.desk.part.moving += 1
                    self.seat.spawn(self._park(key, line, item))
                case _:
                    assert_never(step)
        if line.is_idle:
            self._lines.pop(key, None)
        elif (due := line.due) is not None and due > now:
            self._timers[line] = clock.call_at(due, self._pump, key, line)
        self.desk.part.waiting = len(self._timers)

    def _run(self, key: str, line: KeyLine, item: Item) -> None:
        desk, message = self.desk, item.body
        desk.figures.lane_wait = desk.tools.clock.time() - item.at
        if item.waited:
            message = replace(message, headers={**message.headers, h.HELD_MS: round(1000 * item.waited)})
        turn = Turn(self, line, item, key, self.seat.epoch)
        delivery = Delivery(message, desk.spec.queue, item.tag, self.seat.epoch, item.redelivered, turn)
        if not (item.redelivered and desk.join(delivery)):
            desk.lane.offer(delivery)

    async def _park(self, key: str, line: KeyLine, item: Item) -> None:
        await self._writer.park(key, item, self.desk.read(item.body))
        self.desk.part.moving -= 1
        self._remove(item)
        self._leave(line, item)
        self._pump(key, line)

    async def _obey(self, entry: Entry) -> None:
        await obey(self, entry)
        self.seat.ledger.remove(entry.tag)

    async def _rewrite(self) -> None:
        """Write what is in the ledger anew, but for what runs."""
        waiting = [(key, line, item) for key, line in self._lines.items() for item in line.chain]
        for first in range(0, len(waiting), _AT_ONCE):
            await asyncio.gather(*(self._rewrite_one(*one) for one in waiting[first : first + _AT_ONCE]))

    async def _rewrite_one(self, key: str, line: KeyLine, item: Item) -> None:
        if item is line.running or item.is_moving or not line.has(item):
            return
        item.is_moving = True
        await self._writer.rewrite(item)
        self.pump(key)
