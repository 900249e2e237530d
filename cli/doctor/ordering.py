"""The ledgers of ordered handlers: who owns them, how full they are, and which keys dead letters hold."""

from collections.abc import Iterator

from ...broker import Depth, ledger_queue, open_broker
from ...config import Settings
from ...consumer import HandlerSpec
from ...consumer.ordering.asking import Answer, ask_owner
from ...events import HoldfastError
from .catalogue import Finding

FILLING = 0.5
"""The part of a ledger that is a finding when it is taken."""

_PATIENCE = 5.0
_NAMED = 5  # keys that a finding names


async def of_ordered(settings: Settings, handlers: tuple[HandlerSpec, ...]) -> list[Finding]:
    """Ask the owner of each ordered handler. Changes nothing: the queue of an answer expires."""
    ordered = [(spec.queue, spec.ordered.parked) for spec in handlers if spec.ordered]
    if not ordered:
        return []
    findings = list[Finding]()
    broker = await open_broker(settings, lambda fact: None)
    try:
        for queue, most in ordered:
            ledger, waiting = await broker.count(ledger_queue(queue)), await broker.count(queue)
            if ledger is None or waiting is None:
                continue  # the finding topology-missing says so
            answer = await _ask(settings, queue) if ledger.consumers else None
            findings += of_unowned(queue, ledger, waiting) if answer is None else of_keys(queue, answer, most)
    finally:
        await broker.close()
    return findings


async def _ask(settings: Settings, queue: str) -> Answer | None:
    try:
        return await ask_owner(settings, queue, "list", patience=_PATIENCE)
    except HoldfastError:
        return None


def of_unowned(queue: str, ledger: Depth, waiting: Depth) -> Iterator[Finding]:
    """Judge an ordered queue without an owner, or whose owner does not answer. A ledger holds a record at least."""
    if ledger.consumers:
        yield Finding("ledger-unowned", f"queue {queue}: its owner does not answer within {_PATIENCE:g} s")
    elif (left := max(ledger.ready - 1, 0)) or waiting.ready:
        yield Finding("ledger-unowned", f"queue {queue}: {waiting.ready} in it and {left} in its ledger wait")


def of_keys(queue: str, answer: Answer, most: int) -> Iterator[Finding]:
    """Judge what the owner of a queue lists, or of each partition. `most` events may wait in the ledger of each."""
    for each, parked in sorted(answer["parked"].items()):
        if parked >= most:
            yield Finding("ledger-full", f"queue {each}: {parked} events wait, and {most} may")
        elif parked >= FILLING * most:
            yield Finding("ledger-filling", f"queue {each}: {parked} events wait, and {most} may")
    held = [str(one["key"]) for one in answer["keys"] if one["state"] == "held"]
    if held:
        named = ", ".join(held[:_NAMED]) + (", ..." if len(held) > _NAMED else "")
        yield Finding("keys-held", f"queue {queue}: {len(held)} key(s): {named}")
