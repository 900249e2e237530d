"""`holdfast journal record`: a recorder by itself, with its metrics and its signals."""

import asyncio

from ...broker import REAL, events_topology, open_broker
from ...config import Settings, load_settings
from ...journal import Recorder
from ...telemetry import Emit, FactLog, Metrics, configure_logging, fan_out
from ..probes import probed
from ..run import run
from ..signals import end_when_signalled, heed
from ..sql import opened
from .writing import check_stream


def record_stream(*, once: bool, from_first: bool) -> int:
    """Record until a signal, or until all that is there now is recorded. Returns the exit code."""
    end_when_signalled("stopped before all was recorded; another run goes on from there" if once else "")
    settings = load_settings()
    configure_logging(settings.log)
    check_stream(settings.broker)
    return run(_run(settings, once=once, from_first=from_first))


async def _run(settings: Settings, *, once: bool, from_first: bool) -> int:
    metrics = Metrics()
    emit = fan_out((FactLog(settings.log.successes), metrics))
    async with opened(settings) as database:
        await database.check(settings.sql.schema, keeps=True)
        broker = await open_broker(settings, emit)
        try:
            await broker.declare(events_topology(settings.broker), settings.broker.topology)
            recorder = Recorder(database, broker, settings, emit=emit, clock=REAL)
            if from_first:
                await recorder.begin_anew()
            if once:
                print(f"{await recorder.catch_up()} event(s) of {recorder.stream} are written", flush=True)
            else:
                await _until_signalled(recorder, settings, metrics, emit)
        finally:
            await broker.close()
    return 0


async def _until_signalled(recorder: Recorder, settings: Settings, metrics: Metrics, emit: Emit) -> None:
    recording = asyncio.create_task(recorder.run())

    def stop(counts: bool) -> None:
        recording.cancel()

    heed(stop)
    with probed(settings, metrics, emit, recorder.missing):
        await asyncio.wait([recording])
        if not recording.cancelled():
            recording.result()
