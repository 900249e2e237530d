"""A worker whose lifespan fails."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from holdfast import Worker


def connected() -> object:
    raise OSError("no database")


@asynccontextmanager
async def lifespan() -> AsyncIterator[object]:
    yield connected()


worker = Worker("w", lifespan=lifespan)


@worker.handler("a.b")
async def handle(event: dict[str, Any]) -> None: ...
