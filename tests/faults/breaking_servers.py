"""Scenarios in which the broker, a cluster of them, or the claim store goes, or queues are deleted."""

import asyncio

from arena import Arena
from breaking import delete
from cluster import Cluster
from fault_app import Job
from ledgers import Explains
from scenario import scenario
from workers import LEASE

from holdfast.broker import ladder

# Brokers that go


@scenario("broker restart; SIGKILL of the broker")
async def the_broker_is_restarted(a: Arena) -> None:
    a.grant_the_brokers_timer()
    async with a.under_load():
        await a.sometime()
        with a.broken("broker restarted"):
            await asyncio.to_thread(a.broker.stop)
            await asyncio.to_thread(a.broker.start)


@scenario("broker restart; SIGKILL of the broker")
async def the_broker_is_killed(a: Arena) -> None:
    a.grant_the_brokers_timer()
    await a.until_queues_are_on_disk()
    async with a.under_load():
        await a.sometime()
        with a.broken("broker killed"):
            await asyncio.to_thread(a.broker.kill)
            await asyncio.to_thread(a.broker.start)


@scenario("half-open peer")
async def the_broker_is_frozen(a: Arena) -> None:
    async with a.under_load():
        await a.sometime()
        with a.broken("broker frozen"):
            a.broker.pause()
            await a.sometime(8, shortest=2)
            a.broker.resume()


@scenario("memory alarm, disk alarm")
async def memory_runs_out(a: Arena) -> None:
    async with a.under_load():
        await a.sometime(0.3)
        with a.broken("memory alarm"):
            await asyncio.to_thread(a.broker.ctl, "set_vm_memory_high_watermark", "0.0000001")
            await a.sometime(4)
            await asyncio.to_thread(a.broker.ctl, "set_vm_memory_high_watermark", "0.6")


@scenario("memory alarm, disk alarm")
async def the_disk_is_full(a: Arena) -> None:
    async with a.under_load():
        await a.sometime(0.3)
        with a.broken("disk alarm"):
            await asyncio.to_thread(a.broker.ctl, "set_disk_free_limit", "900000000000000")
            await a.sometime(4)
            await asyncio.to_thread(a.broker.ctl, "set_disk_free_limit", "50MB")


# Clusters

REFUSED: Explains = "what ran"
"""A queue without a leader refuses what handlers publish. Where it does so for longer than they try (`publish_timeout`,
3 s here), they fail, and are retried."""


@scenario("cluster of three: kill a node, partition", cluster=True, partitions=(1, 4))
async def a_node_of_the_cluster_is_killed(a: Arena) -> None:
    assert isinstance(a.broker, Cluster)
    member = a.luck.choice(a.broker.members)
    async with a.under_load():
        await a.sometime()
        with a.broken("node killed", REFUSED):
            await asyncio.to_thread(member.kill)
            await a.sometime(8)
            await asyncio.to_thread(member.start)


@scenario("cluster of three: kill a node, partition", cluster=True, partitions=(1, 4))
async def a_node_of_the_cluster_is_frozen(a: Arena) -> None:
    assert isinstance(a.broker, Cluster)
    member = a.luck.choice(a.broker.members)
    async with a.under_load():
        await a.sometime()
        with a.broken("node frozen", REFUSED):
            member.pause()
            await a.sometime(12)
            member.resume()


@scenario("cluster of three: kill a node, partition", cluster=True, partitions=(1, 4))
async def a_node_of_the_cluster_is_parted_from_the_others(a: Arena) -> None:
    assert isinstance(a.broker, Cluster)
    number = a.luck.choice((1, 2, 3))
    async with a.under_load(450):
        await a.sometime()
        with a.broken("network partition", REFUSED):
            await asyncio.to_thread(a.broker.network.part, number)
            await a.sometime(16, shortest=2)  # before and after the others take it for dead
            await asyncio.to_thread(a.broker.network.mend)


# What is deleted


@scenario("work, dead-letter or delay queue deleted while running; consumer cancelled")
async def the_work_queue_is_deleted(a: Arena) -> None:
    await a.load.steady(80, 150)
    await a.quiet()
    with a.broken("work queue deleted"):
        await delete(a.settings, queues=(a.queue("work"),))
    await a.load.steady(150, 150, delayed=0)  # what finds no queue is returned, and published again


@scenario("work, dead-letter or delay queue deleted while running; consumer cancelled")
async def the_dead_letter_queue_is_deleted(a: Arena) -> None:
    await a.load.steady(80, 150)
    await a.quiet()
    await a.take_letters()
    with a.broken("dead-letter queue deleted"):
        await delete(a.settings, queues=(f"{a.queue('work')}.dead",))
    await a.load.steady(150, 150, mix=((Job, "return"), (Job, "fail"), (Job, "return")))


@scenario("work, dead-letter or delay queue deleted while running; consumer cancelled")
async def the_lower_delay_levels_are_deleted(a: Arena) -> None:
    a.grant_the_brokers_timer()
    await a.load.steady(80, 150)
    await a.quiet()
    with a.broken("delay level deleted"):
        names = tuple(ladder.level_name(level) for level in (0, 1))
        await delete(a.settings, queues=names, exchanges=names)
    await a.load.steady(150, 150, mix=((Job, "return"), (Job, "fail once"), (Job, "return")))


# The claim store


@scenario("Redis restart, kill, flush, pause, out of memory, failover")
async def redis_is_killed(a: Arena) -> None:
    async with a.under_load():
        await a.sometime()
        with a.broken("Redis killed"):
            await asyncio.to_thread(a.claims.kill)
            await a.sometime(1)
            await asyncio.to_thread(a.claims.start)


@scenario("Redis restart, kill, flush, pause, out of memory, failover")
async def redis_is_restarted(a: Arena) -> None:
    async with a.under_load():
        await a.sometime()
        with a.broken("Redis restarted"):
            await asyncio.to_thread(a.claims.stop)
            await asyncio.to_thread(a.claims.start)


@scenario("Redis restart, kill, flush, pause, out of memory, failover", pair=True)
async def redis_fails_over(a: Arena) -> None:
    async with a.under_load(450):
        await a.sometime()
        with a.broken("Redis failed over", "what ran"):  # what the replica had not been told is forgotten
            await asyncio.to_thread(a.claims.kill)
        await a.sometime()
        await asyncio.to_thread(a.claims.start)


@scenario("Redis restart, kill, flush, pause, out of memory, failover")
async def redis_forgets_everything(a: Arena) -> None:
    async with a.under_load():
        await a.sometime()
        with a.broken("Redis flushed", "what was noted"):
            await asyncio.to_thread(a.claims.ctl, "flushall")
            # The heartbeats are gone too: until the next ones, what is claimed may be taken for a dead owner's.
            await a.pause(LEASE / 3)


@scenario("Redis restart, kill, flush, pause, out of memory, failover")
async def redis_does_not_answer(a: Arena) -> None:
    async with a.under_load():
        await a.sometime()
        seconds = a.luck.uniform(0.3, 5)
        with a.broken("Redis frozen", "what ran" if seconds > LEASE / 3 else "nothing"):
            a.claims.pause()
            await a.pause(seconds)
            a.claims.resume()


@scenario("Redis restart, kill, flush, pause, out of memory, failover")
async def redis_is_out_of_memory(a: Arena) -> None:
    async with a.under_load():
        await a.sometime()
        with a.broken("Redis out of memory"):
            await asyncio.to_thread(a.claims.ctl, "config", "set", "maxmemory", "1")
            await a.sometime(2 * LEASE)  # what is claimed stays so, however long it takes
            await asyncio.to_thread(a.claims.ctl, "config", "set", "maxmemory", "0")
