"""Garbage collection in a process that runs a loop."""

import asyncio
import gc

from holdfast.cli.run import run


def test_what_was_imported_is_left_out_of_garbage_collection() -> None:
    async def left_out() -> int:
        await asyncio.sleep(0)
        return gc.get_freeze_count()

    try:
        assert run(left_out()) > 10_000
    finally:
        gc.unfreeze()
