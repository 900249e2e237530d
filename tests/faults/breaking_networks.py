"""Scenarios in which connections break, and the one in which several things do."""

import asyncio

from arena import Arena
from proxy import Direction
from scenario import scenario


@scenario("connection cut around publish, confirm, ack")
async def connections_are_cut_at_random_moments(a: Arena) -> None:
    async with a.under_load():
        for _ in range(6):
            await a.sometime(0.4)
            with a.broken("connection cut"):
                a.luck.choice([*a.proxies, a.to_publisher]).cut()


@scenario("connection cut around publish, confirm, ack")
async def a_workers_connection_is_cut_after_so_many_bytes(a: Arena) -> None:
    async with a.under_load():
        for _ in range(4):
            with a.broken("connection cut in a frame"):
                proxy = a.luck.choice(a.proxies)
                proxy.cut_after(a.luck.randint(1, 30_000), a.luck.choice(list(Direction)))
                await a.sometime(0.7)
                proxy.spare()


@scenario("connection cut around publish, confirm, ack")
async def the_publishers_connection_is_cut_after_so_many_bytes(a: Arena) -> None:
    async with a.under_load():
        for _ in range(4):
            with a.broken("publisher's connection cut in a frame"):
                a.to_publisher.cut_after(a.luck.randint(1, 30_000), a.luck.choice(list(Direction)))
                await a.sometime(0.7)
                a.to_publisher.spare()


@scenario("half-open peer")
async def the_network_swallows_what_workers_say(a: Arena) -> None:
    async with a.under_load():
        await a.sometime()
        directions = a.luck.choice([(Direction.TO_SERVER,), (Direction.TO_CLIENT,), tuple(Direction)])
        with a.broken("half-open connection"):
            for proxy in a.proxies:
                proxy.swallow(*directions)
            await a.sometime(9, shortest=1)
            for proxy in a.proxies:
                proxy.resume()


@scenario("half-open peer")
async def the_network_swallows_what_the_publisher_says(a: Arena) -> None:
    async with a.under_load():
        await a.sometime()
        with a.broken("publisher's connection half-open"):
            a.to_publisher.swallow(*a.luck.choice([(Direction.TO_SERVER,), (Direction.TO_CLIENT,), tuple(Direction)]))
            await a.sometime(9, shortest=1)
            a.to_publisher.resume()


@scenario("slow network, throttled")
async def the_network_is_slow(a: Arena) -> None:
    async with a.under_load():
        await a.sometime()
        with a.broken("slow network"):
            for proxy in a.proxies:
                proxy.slow(a.luck.uniform(0.02, 0.2), a.luck.uniform(20_000, 200_000))
            await a.sometime(4)
            for proxy in a.proxies:
                proxy.slow()


@scenario("several at once")
async def several_things_break_at_once(a: Arena) -> None:
    async with a.under_load(450):
        await a.sometime()
        victim = a.luck.choice(a.workers.living())
        a.workers.kill(victim)
        with a.broken("connection cut"):
            a.luck.choice([*a.proxies, a.to_publisher]).cut()
        with a.broken("Redis killed"):
            await asyncio.to_thread(a.claims.kill)
            await a.sometime(0.5)
            await asyncio.to_thread(a.claims.start)
        await a.workers.followed(victim)
        for _ in range(3):
            with a.broken("connection cut in a frame"):
                proxy = a.luck.choice(a.proxies)
                proxy.cut_after(a.luck.randint(1, 20_000), a.luck.choice(list(Direction)))
                await a.sometime(0.4)
                proxy.spare()
