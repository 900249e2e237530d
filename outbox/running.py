"""A relay at work: next to it, what hears of commits, and what deletes old rows of the inbox."""

import asyncio
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from ..broker import Clock, Pause, sleep
from ..config import Settings
from ..sql import Kept, Listener, Steps
from ..telemetry import Emit, InboxSwept, JournalSwept, OutboxDeaf, heed_cancellation
from .relay import Relay

_LISTEN_AGAIN = Pause(0.5, 30.0)
_SWEEP_EVERY = 60.0
_CHUNK = 1000


async def relaying(relay: Relay, settings: Settings, emit: Emit, clock: Clock) -> None:
    """Run a relay until it is stopped. It polls where nothing can be heard."""
    beside = [
        asyncio.create_task(_hear(relay, settings, emit)),
        asyncio.create_task(_sweep(relay, settings, emit, clock)),
    ]
    try:
        await relay.run()
    finally:
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)


async def _hear(relay: Relay, settings: Settings, emit: Emit) -> None:
    """Wake the relay by the database's notifications. A connection that is lost is made again."""
    direct = settings.sql.listen_url
    url = direct.get_secret_value() if direct is not None else None
    listener = Listener(relay.database, settings.sql.schema, relay.wake, url=url)
    failures = 0
    while listener.is_able:
        heed_cancellation()
        try:
            await listener.listen(lambda: emit(OutboxDeaf(relay.database.name)))
            failures = 0
        except Exception:  # noqa: BLE001 (the relay says what is wrong with the database)
            heed_cancellation()
            failures += 1
        await asyncio.sleep(_LISTEN_AGAIN.seconds(failures, 1.0))


async def _sweep(relay: Relay, settings: Settings, emit: Emit, clock: Clock) -> None:
    """Delete what is past its window, in one process at a time and at most a fifth of the time."""
    while True:
        heed_cancellation()
        await sleep(clock, _SWEEP_EVERY)
        try:
            swept = await sweep(relay, settings)
        except Exception:  # noqa: BLE001 (as above)
            continue
        if swept.inbox:
            emit(InboxSwept(relay.database.name, swept.inbox))
        if swept.events:
            emit(JournalSwept(relay.database.name, swept.events))


@dataclass(frozen=True, slots=True)
class Swept:
    """How many rows of the inbox and how many kept events were deleted."""

    inbox: int = 0
    events: int = 0


async def sweep(relay: Relay, settings: Settings) -> Swept:
    """Delete the rows of the inbox past their window, and events past `HOLDFAST_SQL__KEEP`; nothing if another process
    does it."""
    statements = relay.database.statements(settings.sql.schema)

    def take() -> Steps[bool]:
        lease = {"token": relay.leases.token, "lease": settings.sql.lease, "kind": "sweeper", "wanted": 1}
        return bool((yield statements.take, lease))

    def chunk() -> Steps[int]:
        return len((yield statements.sweep, {"ttl": settings.sql.inbox_ttl}))

    if not await relay.database.run(take()):
        return Swept()
    kept = 0
    if settings.sql.keeps and settings.sql.keep < math.inf:
        kept = await _in_chunks(relay, partial(_forget, relay.database.kept(settings.sql.schema), settings.sql.keep))
    return Swept(await _in_chunks(relay, chunk), kept)


def _forget(statements: Kept, keep: float) -> Steps[int]:
    """Delete the first events that were sent and are kept no longer."""
    past = yield statements.past, {"keep": keep}
    seqs = json.dumps([seq for seq, _ in past])
    if past:
        yield statements.forgot, {"position": str(max(position for _, position in past))}
    yield statements.forget_positions, {"seqs": seqs}
    return len((yield statements.forget_events, {"seqs": seqs}))


async def _in_chunks(relay: Relay, chunk: Callable[[], Steps[int]]) -> int:
    total, deleted = 0, _CHUNK
    while deleted == _CHUNK:
        began = time.monotonic()
        total += (deleted := await relay.database.run(chunk()))
        await asyncio.sleep(4 * (time.monotonic() - began))
    return total
