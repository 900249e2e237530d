"""Scenarios that take an ordered queue from its owner, again and again. (In all others it is a part of the load.)"""

import asyncio
import signal

from arena import Arena
from load import IN_ORDER
from proxy import Direction
from scenario import scenario
from workers import LEASE

ROW = "order per key: owners killed, stopped, frozen, cut off; rolling deploy; dead letters that hold their keys"
BOTH = (1, 4)


@scenario(ROW, partitions=BOTH)
async def owners_of_an_ordered_queue_are_killed(a: Arena) -> None:
    async with a.under_load(450, mix=IN_ORDER):
        for _ in range(3):
            await a.sometime(0.7)
            owner = await a.workers.owner(a.ordered)
            a.workers.kill(owner)
            await a.workers.followed(owner)


@scenario(ROW, partitions=BOTH)
async def the_owner_of_an_ordered_queue_is_frozen_past_its_lease(a: Arena) -> None:
    async with a.under_load(450, mix=IN_ORDER):
        for _ in range(2):
            await a.sometime()
            owner = await a.workers.owner(a.ordered)
            with a.broken("worker frozen", "what ran", owner.pid):
                owner.process.send_signal(signal.SIGSTOP)
                await a.pause(LEASE + a.luck.uniform(0.5, 4))
                owner.process.send_signal(signal.SIGCONT)


@scenario(ROW, partitions=BOTH)
async def the_owner_of_an_ordered_queue_is_cut_off(a: Arena) -> None:
    async with a.under_load(450, mix=IN_ORDER):
        for _ in range(6):
            await a.sometime(0.6)
            proxy = a.proxy_of(await a.workers.owner(a.ordered))
            with a.broken("connection cut"):
                proxy.cut()
        for _ in range(3):
            proxy = a.proxy_of(await a.workers.owner(a.ordered))
            with a.broken("connection cut in a frame"):
                proxy.cut_after(a.luck.randint(1, 20_000), a.luck.choice(list(Direction)))
                await a.sometime(0.7)
                proxy.spare()


@scenario(ROW, partitions=BOTH)
async def the_network_swallows_what_the_owner_of_an_ordered_queue_says(a: Arena) -> None:
    async with a.under_load(450, mix=IN_ORDER):
        for _ in range(2):
            await a.sometime()
            proxy = a.proxy_of(await a.workers.owner(a.ordered))
            directions = a.luck.choice([(Direction.TO_SERVER,), (Direction.TO_CLIENT,), tuple(Direction)])
            with a.broken("half-open connection"):
                proxy.swallow(*directions)
                await a.sometime(9, shortest=1)
                proxy.resume()


@scenario(ROW, partitions=BOTH)
async def a_rolling_deploy_replaces_every_worker_twice(a: Arena) -> None:
    async with a.under_load(600, mix=IN_ORDER):
        for leaver in [*a.workers.living(), *a.workers.living()]:
            await a.sometime(0.5)
            with a.broken("worker replaced"):
                await a.workers.until_attached(await a.workers.start())
                await a.workers.stop(leaver if not leaver.gone.is_set() else a.workers.living()[0])


@scenario(ROW, partitions=BOTH)
async def workers_of_an_ordered_queue_come_and_go(a: Arena) -> None:
    async with a.under_load(600, mix=IN_ORDER):
        with a.broken("workers added and stopped"):
            for _ in range(2):
                await a.workers.until_attached(await a.workers.start())
                await a.sometime(0.5)
            for _ in range(3):
                await a.workers.stop(await a.workers.owner(a.ordered))
                await a.sometime(0.5)


@scenario(ROW, partitions=BOTH)
async def dead_letters_hold_their_keys_until_they_are_replayed(a: Arena) -> None:
    sick = ("s1", "s2", "s3")
    with a.broken("handlers fail until they are mended"):
        async with a.under_load(450, mix=IN_ORDER):
            for number in range(8):
                does = "fail until well" if number == 2 else "return"
                await asyncio.gather(*(a.load.place(key, does) for key in sick))
            await a.until_held(len(sick))
            owner = await a.workers.owner(a.ordered)
            a.workers.kill(owner)
            await a.workers.followed(owner)
            await a.until_held(len(sick))
        a.mend()
        await a.pass_over(sick[0])
        for key in sick[1:]:
            await a.replay(key)
