"""`holdfast run`: a worker, its log and its signals."""

import asyncio
import signal
import sys

from ..config import environment, unknown_variables
from ..consumer import Worker
from ..telemetry import configure_logging
from .load import load_worker


def run_worker(target: str, *, concurrency: int | None, only: tuple[str, ...]) -> int:
    """Run until a signal. Returns the exit code: 0 when drained, 1 when forced by a second signal."""
    worker = load_worker(target)
    configure_logging(worker.settings.log)
    for line in unknown_variables(environment()):
        print(f"holdfast: warning: {line}", file=sys.stderr)
    return asyncio.run(_until_signalled(worker, concurrency, only))


async def _until_signalled(worker: Worker, concurrency: int | None, only: tuple[str, ...]) -> int:
    loop = asyncio.get_running_loop()
    signals = 0

    def stop() -> None:
        nonlocal signals
        signals += 1
        worker.stop(now=signals > 1)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    await worker.run(only=only, concurrency=concurrency)
    return 0 if signals < 2 else 1
