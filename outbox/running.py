"""A relay at work: next to it, what hears of commits, and what deletes old rows of the inbox."""

import asyncio
import time

from ..broker import Clock, Pause, sleep
from ..config import Settings
from ..sql import Listener, Steps
from ..telemetry import Emit, InboxSwept, OutboxDeaf
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
        try:
            await listener.listen(lambda: emit(OutboxDeaf(relay.database.name)))
            failures = 0
        except Exception:  # noqa: BLE001 (the relay says what is wrong with the database)
            failures += 1
        await asyncio.sleep(_LISTEN_AGAIN.seconds(failures, 1.0))


async def _sweep(relay: Relay, settings: Settings, emit: Emit, clock: Clock) -> None:
    """Delete rows of the inbox past their window, in one process at a time and at most a fifth of the time."""
    while True:
        await sleep(clock, _SWEEP_EVERY)
        try:
            deleted = await sweep(relay, settings)
        except Exception:  # noqa: BLE001 (as above)
            continue
        if deleted:
            emit(InboxSwept(relay.database.name, deleted))


async def sweep(relay: Relay, settings: Settings) -> int:
    """Delete the rows of the inbox past their window. Returns how many there were; none if another process does it."""
    statements = relay.database.statements(settings.sql.schema)

    def take() -> Steps[bool]:
        lease = {"token": relay.leases.token, "lease": settings.sql.lease, "kind": "sweeper", "wanted": 1}
        return bool((yield statements.take, lease))

    def chunk() -> Steps[int]:
        return len((yield statements.sweep, {"ttl": settings.sql.inbox_ttl}))

    if not await relay.database.run(take()):
        return 0
    total, deleted = 0, _CHUNK
    while deleted == _CHUNK:
        began = time.monotonic()
        total += (deleted := await relay.database.run(chunk()))
        await asyncio.sleep(4 * (time.monotonic() - began))
    return total
