"""`holdfast relay`: a relay by itself, with its metrics and its signals."""

import random
from contextlib import suppress
from functools import partial

from ..broker import REAL, events_topology, open_broker
from ..config import Settings, load_settings
from ..outbox import Relay, relaying
from ..sql import DatabaseUnavailable
from ..telemetry import FactLog, Metrics, RelayStarted, configure_logging, fan_out, keep_running, open_spans
from .probes import probed
from .reach import check_reach
from .run import run
from .signals import end_when_signalled, heed
from .sql import opened


def run_relay() -> int:
    """Send until a signal. Returns the exit code."""
    end_when_signalled()
    settings = load_settings()
    configure_logging(settings.log)
    return run(_run(settings))


async def _run(settings: Settings) -> int:
    metrics = Metrics()
    emit = fan_out((FactLog(settings.log.successes), metrics))
    async with opened(settings) as database:
        check_reach(settings.broker)
        with suppress(DatabaseUnavailable):  # the relay waits for it
            await database.check(settings.sql.schema, keeps=settings.sql.keeps)
        broker = await open_broker(settings, emit)
        try:
            await broker.declare(events_topology(settings.broker), settings.broker.topology)
            relay = Relay(database, broker, settings, emit=emit, spans=open_spans(), clock=REAL, luck=random.random)
            heed(lambda counts: relay.stop())
            with probed(settings, metrics, emit, relay.missing):
                emit(RelayStarted(database.name))
                await keep_running("relay", partial(relaying, relay, settings, emit, REAL), emit)
        finally:
            await broker.close()
    return 0
