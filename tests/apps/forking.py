"""A worker whose process forks and dies while it is imported; what it forked lives on."""

import os
import time
from pathlib import Path
from typing import Any

from holdfast import Worker

if (child := os.fork()) == 0:
    time.sleep(60)
    os._exit(0)
Path(__file__).with_name("forked").write_text(str(child))
os.kill(os.getpid(), 9)
worker = Worker("w")


@worker.handler("some.event")
async def handle(event: dict[str, Any]) -> None: ...
