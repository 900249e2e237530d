"""Every row of the fault matrix, as a named scenario: what is broken, how, and when."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from arena import LEASE, Arena
from breaking import delete
from cluster import Cluster
from fault_app import RAISED, Job
from proxy import Direction

from holdfast.broker import ladder

Act = Callable[[Arena], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Scenario:
    """`short`: part of `make test`. `workers` is how many processes it begins with, the first armed with `point`."""

    name: str
    row: str
    act: Act
    short: bool = False
    point: str = ""
    cluster: bool = False


SCENARIOS: dict[str, Scenario] = {}


def scenario(row: str, *, short: bool = False, cluster: bool = False) -> Callable[[Act], Act]:
    def register(act: Act) -> Act:
        name = act.__name__.replace("_", " ")
        SCENARIOS[name] = Scenario(name, row, act, short, cluster=cluster)
        return act

    return register


# Workers that die


async def _die_at_the_point(a: Arena) -> None:
    victim = a.children[0]
    async with a.under_load():
        await a.sometime()
        victim.process.send_signal(signal.SIGUSR1)
        await a.followed(victim)


for _point in ("before claim", "after claim", "after effect", "after complete", "after release", "after confirm"):
    _name = f"a worker is killed {_point}"
    SCENARIOS[_name] = Scenario(
        _name, "SIGKILL the worker", _die_at_the_point, short=_point == "after effect", point=_point
    )


@scenario("SIGKILL the worker")
async def workers_are_killed_at_random_moments(a: Arena) -> None:
    async with a.under_load():
        for _ in range(2):
            await a.sometime()
            victim = a.luck.choice([child for child in a.living() if child.attached.is_set() or not child.stopped_at])
            a.kill(victim)
            await a.followed(victim)


@scenario("SIGTERM in a handler; twice")
async def a_worker_is_told_to_stop_and_another_takes_over(a: Arena) -> None:
    async with a.under_load():
        await a.sometime()
        leaver = a.children[0]
        with a.broken("worker stopped"):
            await a.start_worker()
            leaver.leaving = True
            leaver.process.send_signal(signal.SIGTERM)
            assert await leaver.process.wait() == 0
            await a.until_attached(a.children[-1])


@scenario("SIGTERM in a handler; twice")
async def a_worker_is_told_to_stop_twice(a: Arena) -> None:
    async with a.under_load():
        await a.sometime()
        leaver, follower = a.children[0], await a.start_worker()
        leaver.leaving = True
        with a.broken("worker stopped at once", "its process", leaver.pid):
            for _ in range(2):
                leaver.process.send_signal(signal.SIGTERM)
                await asyncio.sleep(0.02)
            async with asyncio.timeout(5):
                await leaver.process.wait()
            await a.until_attached(follower)


@scenario("half-open peer")
async def a_worker_is_frozen_for_longer_than_its_lease(a: Arena) -> None:
    async with a.under_load():
        await a.sometime()
        frozen = a.luck.choice(a.living())
        with a.broken("worker frozen", "what ran", frozen.pid):
            frozen.process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(LEASE + a.luck.uniform(0.5, 2))
            frozen.process.send_signal(signal.SIGCONT)


# Brokers that go


@scenario("broker restart; SIGKILL of the broker")
async def the_broker_is_restarted(a: Arena) -> None:
    async with a.under_load():
        await a.sometime()
        with a.broken("broker restarted"):
            await asyncio.to_thread(a.broker.stop)
            await asyncio.to_thread(a.broker.start)


@scenario("broker restart; SIGKILL of the broker")
async def the_broker_is_killed(a: Arena) -> None:
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
            await asyncio.sleep(a.luck.uniform(2, 8))
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


@scenario("cluster of three: kill a node, partition", cluster=True)
async def a_node_of_the_cluster_is_killed(a: Arena) -> None:
    assert isinstance(a.broker, Cluster)
    member = a.luck.choice(a.broker.members)
    async with a.under_load():
        await a.sometime()
        with a.broken("node killed"):
            await asyncio.to_thread(member.kill)
            await a.sometime(8)
            await asyncio.to_thread(member.start)


@scenario("cluster of three: kill a node, partition", cluster=True)
async def a_node_of_the_cluster_is_frozen(a: Arena) -> None:
    assert isinstance(a.broker, Cluster)
    member = a.luck.choice(a.broker.members)
    async with a.under_load():
        await a.sometime()
        with a.broken("node frozen"):
            member.pause()
            await a.sometime(12)
            member.resume()


@scenario("cluster of three: kill a node, partition", cluster=True)
async def a_node_of_the_cluster_is_parted_from_the_others(a: Arena) -> None:
    assert isinstance(a.broker, Cluster)
    number = a.luck.choice((1, 2, 3))
    async with a.under_load(450):
        await a.sometime()
        with a.broken("network partition"):
            await asyncio.to_thread(a.broker.network.part, number)
            await asyncio.sleep(a.luck.uniform(2, 16))  # before and after the others take it for dead
            await asyncio.to_thread(a.broker.network.mend)


# Connections that break


@scenario("connection cut around publish, confirm, ack", short=True)
async def connections_are_cut_at_random_moments(a: Arena) -> None:
    async with a.under_load():
        for _ in range(6):
            await a.sometime(0.4)
            with a.broken("connection cut"):
                a.luck.choice([*a.proxies, a.to_publisher]).cut()


@scenario("connection cut around publish, confirm, ack", short=True)
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
            await asyncio.sleep(a.luck.uniform(1, 9))
            for proxy in a.proxies:
                proxy.resume()


@scenario("half-open peer")
async def the_network_swallows_what_the_publisher_says(a: Arena) -> None:
    async with a.under_load():
        await a.sometime()
        with a.broken("publisher's connection half-open"):
            a.to_publisher.swallow(*a.luck.choice([(Direction.TO_SERVER,), (Direction.TO_CLIENT,), tuple(Direction)]))
            await asyncio.sleep(a.luck.uniform(1, 9))
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


# What is deleted


@scenario("work, dead-letter or delay queue deleted while running; consumer cancelled")
async def the_work_queue_is_deleted(a: Arena) -> None:
    await a.load(80, 150)
    await a.quiet()
    with a.broken("work queue deleted"):
        await delete(a.settings, queues=(a.queue("work"),))
    await a.load(150, 150, delayed=0)  # what finds no queue is returned, and published again


@scenario("work, dead-letter or delay queue deleted while running; consumer cancelled")
async def the_dead_letter_queue_is_deleted(a: Arena) -> None:
    await a.load(80, 150)
    await a.quiet()
    await a.take_letters()
    with a.broken("dead-letter queue deleted"):
        await delete(a.settings, queues=(f"{a.queue('work')}.dead",))
    await a.load(150, 150, mix=((Job, "return"), (Job, "fail"), (Job, "return")))


@scenario("work, dead-letter or delay queue deleted while running; consumer cancelled")
async def the_lower_delay_levels_are_deleted(a: Arena) -> None:
    await a.load(80, 150)
    await a.quiet()
    with a.broken("delay level deleted"):
        names = tuple(ladder.level_name(level) for level in (0, 1))
        await delete(a.settings, queues=names, exchanges=names)
    await a.load(150, 150, mix=((Job, "return"), (Job, "fail once"), (Job, "return")))


# The claim store


@scenario("Redis restart, kill, flush, pause, out of memory, failover", short=True)
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


@scenario("Redis restart, kill, flush, pause, out of memory, failover")
async def redis_forgets_everything(a: Arena) -> None:
    async with a.under_load():
        await a.sometime()
        with a.broken("Redis flushed", "what ran"):
            await asyncio.to_thread(a.claims.ctl, "flushall")


@scenario("Redis restart, kill, flush, pause, out of memory, failover")
async def redis_does_not_answer(a: Arena) -> None:
    async with a.under_load():
        await a.sometime()
        seconds = a.luck.uniform(0.3, 5)
        with a.broken("Redis frozen", "what ran" if seconds > LEASE / 3 else "nothing"):
            a.claims.pause()
            await asyncio.sleep(seconds)
            a.claims.resume()


@scenario("Redis restart, kill, flush, pause, out of memory, failover")
async def redis_is_out_of_memory(a: Arena) -> None:
    async with a.under_load():
        await a.sometime()
        seconds = a.luck.uniform(0.3, 3)
        with a.broken("Redis out of memory", "what ran" if seconds > LEASE / 3 else "nothing"):
            await asyncio.to_thread(a.claims.ctl, "config", "set", "maxmemory", "1")
            await asyncio.sleep(seconds)
            await asyncio.to_thread(a.claims.ctl, "config", "set", "maxmemory", "0")


# Handlers that misbehave


@scenario("handler hangs, ignores cancellation, blocks the loop")
async def handlers_hang(a: Arena) -> None:
    async with a.under_load():
        with a.broken("handlers hang"):
            for _ in range(3):
                await a.publish(Job(does="hang"))


@scenario("handler hangs, ignores cancellation, blocks the loop")
async def handlers_ignore_their_cancellation(a: Arena) -> None:
    async with a.under_load():
        with a.broken("handlers ignore cancellation"):
            for _ in range(2):
                await a.publish(Job(does="stubborn"))


@scenario("handler hangs, ignores cancellation, blocks the loop")
async def handlers_block_the_loop(a: Arena) -> None:
    async with a.under_load():
        with a.broken("handlers block the loop"):
            for _ in range(3):
                await a.publish(Job(does="block the loop"))
                await a.sometime()


@scenario("handler raises KeyboardInterrupt, SystemExit, ...", short=True)
async def handlers_raise_what_nobody_expects(a: Arena) -> None:
    async with a.under_load():
        with a.broken("odd exceptions"):
            for name in RAISED:
                await a.publish(Job(does=f"raise:{name}"))


@scenario("poison: kills its process")
async def a_poison_event_kills_its_process(a: Arena) -> None:
    async with a.under_load(150):
        await a.sometime()
        await a.publish(Job(does="die"))
    async with asyncio.timeout(60):
        while len(a.faults) < 3:
            await asyncio.sleep(0.1)


@scenario("several at once")
async def several_things_break_at_once(a: Arena) -> None:
    async with a.under_load(450):
        await a.sometime()
        victim = a.luck.choice(a.living())
        a.kill(victim)
        with a.broken("connection cut"):
            a.luck.choice([*a.proxies, a.to_publisher]).cut()
        with a.broken("Redis killed"):
            await asyncio.to_thread(a.claims.kill)
            await a.sometime(0.5)
            await asyncio.to_thread(a.claims.start)
        await a.followed(victim)
        for _ in range(3):
            with a.broken("connection cut in a frame"):
                proxy = a.luck.choice(a.proxies)
                proxy.cut_after(a.luck.randint(1, 20_000), a.luck.choice(list(Direction)))
                await a.sometime(0.4)
                proxy.spare()
