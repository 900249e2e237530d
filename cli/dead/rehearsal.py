"""Running a handler on letters without the broker: in this process, on the in-memory one. Its publishes are caught."""

import asyncio
import uuid
from collections import Counter
from collections.abc import Sequence

from pydantic import SecretStr

from ...broker import Binding, Delivery, Queue, Topology, open_broker
from ...consumer import HandlerSpec
from ...dead_letters import Letter, Rehearsal
from ...dead_letters.remake import replayed
from ...telemetry import Fact, Settled
from ..load import load_worker

_CAUGHT = "holdfast.rehearsal"


async def rehearse(target: str, spec: HandlerSpec, letters: Sequence[Letter]) -> Rehearsal:
    """Run the handler on each letter, once. Its lifespan and middleware run as well; its effects are real."""
    worker = load_worker(target)
    told, caught, done = Rehearsal(), Counter[str](), asyncio.Event()

    def hear(fact: Fact) -> None:
        if not isinstance(fact, Settled) or fact.outcome == "given_back":
            return
        if fact.outcome in ("handled", "duplicate"):
            told.handled += 1
        else:
            told.failed += 1
            told.errors.append(f"{fact.error_type}: {fact.error}")
        if told.handled + told.failed >= len(letters):
            done.set()

    broker_settings = worker.settings.broker.model_copy(
        update={"url": SecretStr(f"memory://{uuid.uuid4().hex}"), "topology": "declare"}
    )
    claims = worker.settings.idempotency.model_copy(update={"url": SecretStr(f"memory://{uuid.uuid4().hex}")})
    settings = worker.settings.model_copy(update={"broker": broker_settings, "idempotency": claims})
    worker.configure(settings=settings, listeners=[hear])
    broker = await open_broker(settings, lambda fact: None)
    running = asyncio.create_task(worker.run(only=[spec.name]))
    try:
        while not worker.health().ready and not running.done():  # noqa: ASYNC110 (asked, not told)
            await asyncio.sleep(0.01)

        def catch(delivery: Delivery) -> None:
            caught[delivery.message.type or "?"] += 1

        exchange = settings.broker.exchange
        await broker.declare(Topology(queues=(Queue(_CAUGHT),), bindings=(Binding(exchange, _CAUGHT, "#"),)))
        await broker.consume(_CAUGHT, prefetch=0, on_delivery=catch)
        for letter in letters:
            message = replayed(letter, operation="rehearsal", target=spec.queue, forced=True)
            await broker.publish(message, timeout=None)
        ended = asyncio.create_task(done.wait())
        await asyncio.wait({ended, running}, return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
    finally:
        worker.stop(now=True)
        await running
        await broker.close()
    told.published = dict(caught)
    return told
