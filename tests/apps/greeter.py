"""Two handlers that say what they are given, one of which waits for a file (`holdfast run`, `publish`, `check`)."""

import os
import time
from pathlib import Path

from holdfast import Context, Event, Worker

NAME = "greeter"
GREETING = "GREETING"


def say(*words: str) -> None:
    """Write a line in one piece: two handlers may speak at once."""
    os.write(1, (" ".join(words) + "\n").encode())


class Greeted(Event, type=f"{NAME}.greeted"):
    name: str


class Slow(Event, type=f"{NAME}.slow"):
    name: str


worker = Worker(NAME)
other = Worker(f"{NAME}.other")
nothing = Worker(f"{NAME}.nothing")
number = 7


@worker.handler(Greeted)
async def greet(event: Greeted, ctx: Context) -> None:
    say(GREETING, event.name)


@worker.handler(Greeted, Slow)
def shout(event: Greeted | Slow) -> None:
    if isinstance(event, Greeted):
        say("SHOUT", event.name)
        return
    say("BEGAN", event.name)
    while not Path("go").exists():
        time.sleep(0.02)
    say("ENDED", event.name)
