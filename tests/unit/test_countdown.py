"""One timer for many things that have the same time each."""

import asyncio

from holdfast.broker.clock import Countdown


async def test_each_thing_is_due_in_its_turn_and_what_was_removed_never() -> None:
    due, last = list[str](), asyncio.Event()
    countdown = Countdown[str](0.05, lambda thing: (due.append(thing), thing == "c" and last.set())[0])

    for thing in ("a", "gone", "b", "c"):
        countdown.add(thing)
    countdown.remove("gone")
    await last.wait()

    assert due == ["a", "b", "c"]
