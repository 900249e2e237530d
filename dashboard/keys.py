"""The pages of an ordered handler's keys: those that wait, and the confirmations before one goes on."""

from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.responses import Response

from ..broker import DEAD_SUFFIX, Depth, ledger_queue
from ..consumer.ordering.asking import Answer, ask_owner
from ..events import ConfigurationError, HoldfastError
from .page import Visit

_PATIENCE = 10.0  # seconds for the answer of an owner


async def has_keys(visit: Visit) -> bool:
    """Return whether a queue is that of an ordered handler; False where the broker cannot be asked."""
    try:
        return await _ledger(visit) is not None
    except HoldfastError:
        return False


async def keys(visit: Visit) -> Response:
    """List the keys that wait in the ledger, as its owner reports them."""
    try:
        listed = await _ask(visit, "list")
    except HoldfastError as trouble:
        return visit.show("keys.html", 503, keys=[], more=0, error=str(trouble))
    return visit.show("keys.html", keys=listed["keys"], more=listed["more"], error="")


async def change(visit: Visit) -> Response:
    """Show the events of a key and what is asked of its owner, and with POST ask it: `retry` or `skip`."""
    verb = visit.part("verb")
    if verb not in ("retry", "skip"):
        raise HTTPException(404, "a key can be retried and skipped")
    key = visit.selection.key or ""
    if visit.is_asked:
        return visit.show("key.html", verb=verb, key=key, shown=_done(await _ask(visit, "show", key)))
    _done(await _ask(visit, verb, key))
    visit.service.journal.log(visit.service.by, f"{verb} key", visit.queue, key)
    return visit.go(f"/queues/{quote(visit.queue)}/keys")


async def _ask(visit: Visit, verb: str, key: str | None = None) -> Answer:
    ledger = await _ledger(visit)
    if ledger is None:
        raise HTTPException(404, "the handler of this queue is not ordered, or its ledger is not there")
    if not ledger.consumers:
        raise HoldfastError("nobody owns this queue: no worker runs, or it waits for its claim store")
    return await ask_owner(visit.service.settings, _queue(visit), verb, key, patience=_PATIENCE)


async def _ledger(visit: Visit) -> Depth | None:
    visit.service.outage.check()
    return await visit.service.broker.count(ledger_queue(_queue(visit)))


def _queue(visit: Visit) -> str:
    return visit.queue.removesuffix(DEAD_SUFFIX)


def _done(answer: Answer) -> Answer:
    if "error" in answer:
        raise ConfigurationError(answer["error"])
    return answer
