"""A rehearsal in a process of its own: what a handler does to its process does not hurt the page."""

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from typing import IO

from ...dead_letters import Rehearsal
from ...events import ConfigurationError

WITHIN = 600.0
"""Seconds after which the process is killed."""


async def rehearse_elsewhere(worker: str, queue: str, filters: Mapping[str, str], limit: int) -> Rehearsal:
    """`holdfast dead check --run` on the first so many letters that the filters choose, by the last reading.

    Raises `ConfigurationError` with what it said last, where it did not come to its end."""
    which = [f"--limit={limit}", *(f"--{name}={value}" for name, value in filters.items())]
    command = ["-m", "holdfast", "dead", "check", "--run", "--cached", "--json", *which, "--", queue, worker]
    with tempfile.TemporaryFile() as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=log
        )
        try:
            async with asyncio.timeout(WITHIN):
                answer, _ = await process.communicate()
        except TimeoutError:
            raise ConfigurationError(f"the handler was not done within {WITHIN:g} s; the process was killed") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        try:
            return Rehearsal(**json.loads(answer)["run"])
        except (ValueError, KeyError, TypeError):
            raise ConfigurationError(
                f"the run was broken off (exit code {process.returncode}){_last_words(log)}"
            ) from None


def _last_words(log: IO[bytes]) -> str:
    log.seek(max(0, log.seek(0, os.SEEK_END) - 4_000))
    said = log.read().decode(errors="replace").strip().splitlines()
    return f": {said[-1]}" if said else ""
