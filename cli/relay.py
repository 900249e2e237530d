"""`holdfast relay`: a relay by itself, with its metrics and its signals."""

import asyncio
import random
import signal
from contextlib import suppress

from ..broker import REAL, events_exchange, open_broker
from ..config import Settings, load_settings
from ..outbox import Relay, relaying
from ..sql import DatabaseUnavailable
from ..telemetry import Endpoint, FactLog, Metrics, RelayStarted, Serving, configure_logging, fan_out, open_spans
from .run import run
from .sql import opened


def run_relay() -> int:
    """Send until a signal. Returns the exit code."""
    settings = load_settings()
    configure_logging(settings.log)
    return run(_run(settings))


async def _run(settings: Settings) -> int:
    metrics = Metrics()
    emit = fan_out((FactLog(settings.log.successes), metrics))
    async with opened(settings) as database:
        with suppress(DatabaseUnavailable):  # the relay waits for it
            await database.check(settings.sql.schema)
        broker = await open_broker(settings, emit)
        try:
            await broker.declare(events_exchange(settings.broker.exchange), settings.broker.topology)
            relay = Relay(database, broker, settings, emit=emit, spans=open_spans(), clock=REAL, luck=random.random)
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, relay.stop)
            endpoint = Endpoint(settings.http, collect=metrics.collect, live=_live, ready=lambda: _ready(relay))
            emit(Serving(endpoint.start()))
            try:
                emit(RelayStarted(database.name))
                await relaying(relay, settings, emit, REAL)
            finally:
                endpoint.stop()
        finally:
            await broker.close()
    return 0


def _live() -> tuple[bool, dict[str, object]]:
    return True, {"live": True}


def _ready(relay: Relay) -> tuple[bool, dict[str, object]]:
    missing = relay.missing()
    return missing is None, {"ready": missing is None, "missing": [missing] if missing else []}
