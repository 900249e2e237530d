"""An operator's words to the owner of an ordered queue, and its answers."""

import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from ...broker import ledger_queue
from ...events import HoldfastError, Message, Metadata, read_metadata, uuid7
from ...events import headers as h
from .keys import Item, KeyLine
from .ledger import Entry, answer

if TYPE_CHECKING:
    from .tenure import Tenure

_SHOWN = 1_000
PATIENCE = 30.0
"""Seconds for an answer. An owner that is being replaced answers as the next one, and a busy one late."""


def command(queue: str, verb: str, key: str | None, to: str) -> Message:
    """Return a command to the owner of a handler's queue: `list`, `show`, `retry` or `skip`. It answers to `to`. With
    more partitions it reaches the owner of the key's one, or all of them: each answer says how many there are."""
    named = {} if key is None else {h.ORDER_KEY: key}
    body = json.dumps({"verb": verb, "key": key, "to": to}).encode()
    return Message(body, "", ledger_queue(queue), headers={h.LEDGER: "command", **named}, message_id=uuid7())


async def obey(tenure: "Tenure", entry: Entry) -> None:
    """Do what a command says, and answer. One that cannot be read is ignored."""
    try:
        given = json.loads(entry.message.body)
        verb, key, to = str(given["verb"]), str(given["key"] or ""), str(given["to"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return
    broker, answers = tenure.desk.tools.broker, entry.message.headers.get(h.PARTITIONS)
    more = {"answers": answers} if type(answers) is int else {}
    try:
        await broker.publish(answer(to, _done(tenure, verb, key) | more), timeout=PATIENCE)
    except HoldfastError:
        return  # nobody waits for it any more


def _done(tenure: "Tenure", verb: str, key: str) -> dict[str, Any]:
    if verb == "list":
        waiting = {key: line for key, line in tenure.lines.items() if line.chain}
        keys = [_summary(tenure, key, line) for key, line in [*waiting.items()][:_SHOWN]]
        parked = {tenure.desk.queue: tenure.desk.part.parked}
        return {"fence": tenure.seat.epoch, "keys": keys, "more": max(len(waiting) - _SHOWN, 0), "parked": parked}
    line = tenure.lines.get(key)
    if line is None or not line.chain:
        return {"fence": tenure.seat.epoch, "error": f"no event waits for key {key!r}"}
    if verb == "show":
        events = [_event(tenure, item) for item in line.chain[:_SHOWN]]
        return {"fence": tenure.seat.epoch, **_summary(tenure, key, line), "events": events}
    return {"fence": tenure.seat.epoch, **_change(tenure, verb, key, line)}


def _change(tenure: "Tenure", verb: str, key: str, line: KeyLine) -> dict[str, Any]:
    if verb == "skip" and tenure.skip(key):
        return {"done": f"the dead letter no longer holds {key!r}"}
    if verb == "skip":
        return {"error": f"no dead letter holds {key!r}"}
    if verb == "retry" and line.hurry():
        tenure.pump(key)
        return {"done": f"{key!r} is tried now"}
    return {"error": f"{key!r} is held by a dead letter: replay it with `holdfast dead replay --key`"}


def _summary(tenure: "Tenure", key: str, line: KeyLine) -> dict[str, Any]:
    head, clock = line.chain[0], tenure.desk.tools.clock
    state = "held" if head.is_stub else "running" if line.running is head else "waiting"
    due = None
    if state == "waiting":
        due = (clock.now() + timedelta(seconds=max(head.due - clock.time(), 0.0))).isoformat()
    return {"key": key, "state": state, "waiting": len(line.chain), "due": due, **_event(tenure, head)}


def _event(tenure: "Tenure", item: Item) -> dict[str, Any]:
    message: Message = item.body
    metadata: Metadata = read_metadata(message, _NO_TIME)
    carried = message.headers
    return {
        "event_id": metadata.event_id,
        "event_type": metadata.event_type,
        "attempt": carried.get(h.ATTEMPT, 1),
        "cause": carried.get(h.LAST_ERROR) or carried.get(h.REASON),
        "is_dead": item.is_stub,
    }


_NO_TIME = datetime.fromtimestamp(0).astimezone()
