"""Scenarios in which what arrives is made to break its reader, or what is there is not what was declared."""

import asyncio

from arena import Arena
from hostile import BODIES, PROPERTIES
from scenario import scenario


@scenario(
    "oversize body, malformed ...; wrong content type, compression bomb; header flood, nested tables, forged headers"
)
async def hostile_messages_come_among_the_others(a: Arena) -> None:
    rounds = [(body, {"headers": {}} | properties) for body, properties in BODIES.values()]
    rounds += [(b'{"does": "fail once"}', properties) for properties in PROPERTIES.values()]
    await a.load.steady(80, 150)
    for _ in range(3):  # each worker has met the largest, whose memory Python keeps: a leak takes more each time
        await a.load.publish_raw(rounds)
    await a.weigh()
    async with a.under_load():
        with a.broken("hostile messages"):
            for _ in range(3):
                a.luck.shuffle(rounds)
                await a.load.publish_raw(rounds)
                await a.sometime(0.5)


@scenario("conflicting queue arguments (406)")
async def a_worker_declares_other_arguments(a: Arena) -> None:
    async with a.under_load():
        await a.sometime()
        with a.broken("other arguments"):
            stranger = await a.workers.start(HOLDFAST_BROKER__QUEUE_TYPE="classic")
            stranger.leaving = True
            async with asyncio.timeout(30):
                assert await stranger.ended() != 0
            assert "TopologyDrift: queue" in (said := stranger.log.read_text()), said[-2000:]
