"""What every command of `holdfast dead` begins with: settings, a broker, the desk, a queue that was read."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

from rich.console import Console

from ...broker import open_broker
from ...config import LogSettings, load_settings
from ...dead_letters import DeadLetters, Index
from ...events import BrokerUnavailable, HoldfastError
from ...telemetry import configure_logging

CONNECT_WITHIN = 15.0


@asynccontextmanager
async def a_desk() -> AsyncIterator[DeadLetters]:
    """Open the dead letters of the broker that the settings name. Raises `BrokerUnavailable` where it does not answer,
    `HoldfastError` where the files of the tools cannot be read or written."""
    settings = load_settings()
    configure_logging(LogSettings(level="CRITICAL"))
    broker = await open_broker(settings, lambda fact: None)
    try:
        with closing(DeadLetters(settings, broker)) as desk:
            try:
                async with asyncio.timeout(CONNECT_WITHIN):
                    await broker.count("holdfast.queues")
            except TimeoutError:
                raise BrokerUnavailable("the broker does not answer") from None
            yield desk
    except sqlite3.Error as error:
        files = "the files of the dead-letter tools, in HOLDFAST_DEAD_LETTERS__FOLDER"
        raise HoldfastError(f"{files}: {error}") from error
    finally:
        await broker.close()


async def read(desk: DeadLetters, name: str, *, cached: bool = False, worn: bool = False) -> tuple[str, Index]:
    """The dead-letter queue of this name and its index, freshly read unless `cached`; on a terminal a count runs."""
    queue = await desk.resolve(name)
    if cached and desk.index(queue).read_at is not None:
        return queue, desk.index(queue)
    error = Console(stderr=True, highlight=False)
    if not error.is_terminal:
        return queue, await desk.read(queue, worn_too=worn)
    with error.status(f"reading {queue}") as status:
        return queue, await desk.read(
            queue, worn_too=worn, tell=lambda count: status.update(f"reading {queue}: {count:,} letters")
        )
