"""Metrics and probes of a command that runs until a signal: its loop is watched as a worker's is."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..config import Settings
from ..telemetry import Emit, Endpoint, Metrics, Serving, Watchdog


@contextmanager
def probed(settings: Settings, metrics: Metrics, emit: Emit, missing: Callable[[], str | None]) -> Iterator[None]:
    """Serve them, from the running loop's thread. `missing` returns what keeps the command from its work."""
    watchdog = Watchdog(settings.worker.block_limit, emit)

    def live() -> tuple[bool, dict[str, Any]]:
        still = watchdog.still()
        is_live = still <= settings.worker.live_limit
        return is_live, {"live": is_live, "still": round(still, 3)}

    def ready() -> tuple[bool, dict[str, Any]]:
        lacks = missing()
        return lacks is None, {"ready": lacks is None, "missing": [] if lacks is None else [lacks]}

    endpoint = Endpoint(settings.http, collect=metrics.collect, live=live, ready=ready, emit=emit)
    emit(Serving(endpoint.start()))
    watchdog.start(asyncio.get_running_loop())
    try:
        yield
    finally:
        watchdog.stop()
        endpoint.stop()
