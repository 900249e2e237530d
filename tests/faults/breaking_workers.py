"""Scenarios in which workers die, or handlers misbehave."""

import asyncio
import signal

from arena import Arena
from fault_app import RAISED, Job
from scenario import SCENARIOS, Scenario, scenario
from workers import LEASE

# Workers that die


async def _die_at_the_point(a: Arena) -> None:
    victim = a.workers.all[0]
    async with a.under_load():
        await a.sometime()
        victim.process.send_signal(signal.SIGUSR1)
        await a.workers.followed(victim)


for _point in ("before claim", "after claim", "after effect", "after complete", "after release", "after confirm"):
    _name = f"a worker is killed {_point}"
    SCENARIOS[_name] = Scenario(_name, "SIGKILL the worker", _die_at_the_point, point=_point)


@scenario("SIGKILL the worker")
async def workers_are_killed_at_random_moments(a: Arena) -> None:
    async with a.under_load():
        for _ in range(2):
            await a.sometime()
            victim = a.luck.choice(
                [child for child in a.workers.living() if child.attached.is_set() or not child.stopped_at]
            )
            a.workers.kill(victim)
            await a.workers.followed(victim)


@scenario("SIGTERM in a handler; twice")
async def a_worker_is_told_to_stop_and_another_takes_over(a: Arena) -> None:
    async with a.under_load():
        await a.sometime()
        leaver = a.workers.all[0]
        with a.broken("worker stopped"):
            await a.workers.start()
            leaver.leaving = True
            leaver.process.send_signal(signal.SIGTERM)
            assert await leaver.ended() == 0
            await a.workers.until_attached(a.workers.all[-1])


@scenario("SIGTERM in a handler; twice")
async def a_worker_is_told_to_stop_twice(a: Arena) -> None:
    async with a.under_load():
        await a.sometime()
        leaver, follower = a.workers.all[0], await a.workers.start()
        leaver.leaving = True
        with a.broken("worker stopped at once", "its process", leaver.pid):
            for _ in range(2):
                leaver.process.send_signal(signal.SIGTERM)
                await a.pause(0.02)
            async with asyncio.timeout(5):
                await leaver.ended()
            await a.workers.until_attached(follower)


@scenario("half-open peer")
async def a_worker_is_frozen_for_longer_than_its_lease(a: Arena) -> None:
    async with a.under_load():
        await a.sometime()
        frozen = a.luck.choice(a.workers.living())
        with a.broken("worker frozen", "what ran", frozen.pid):
            frozen.process.send_signal(signal.SIGSTOP)
            await a.pause(LEASE + a.luck.uniform(0.5, 2))
            frozen.process.send_signal(signal.SIGCONT)


@scenario("clock jump")
async def the_clock_jumps(a: Arena) -> None:
    async with a.under_load():
        for _ in range(4):
            await a.sometime(0.5)
            with a.broken("clock jumped"):
                for child in a.workers.living():
                    child.process.send_signal(signal.SIGUSR2)


# Handlers that misbehave


@scenario("handler hangs, ignores cancellation, blocks the loop")
async def handlers_hang(a: Arena) -> None:
    async with a.under_load():
        with a.broken("handlers hang"):
            for _ in range(3):
                await a.load.publish(Job(does="hang"))


@scenario("handler hangs, ignores cancellation, blocks the loop")
async def handlers_ignore_their_cancellation(a: Arena) -> None:
    async with a.under_load():
        with a.broken("handlers ignore cancellation"):
            for _ in range(2):
                await a.load.publish(Job(does="stubborn"))


@scenario("handler hangs, ignores cancellation, blocks the loop")
async def handlers_block_the_loop(a: Arena) -> None:
    async with a.under_load():
        with a.broken("handlers block the loop"):
            for _ in range(3):
                await a.load.publish(Job(does="block the loop"))
                await a.sometime()


@scenario("handler raises KeyboardInterrupt, SystemExit, ...")
async def handlers_raise_what_nobody_expects(a: Arena) -> None:
    async with a.under_load():
        with a.broken("odd exceptions"):
            for name in RAISED:
                await a.load.publish(Job(does=f"raise:{name}"))


@scenario("poison: kills its process")
async def a_poison_event_kills_its_process(a: Arena) -> None:
    async with a.under_load(150):
        await a.sometime()
        await a.load.publish(Job(does=a.luck.choice(("die", "crash"))))
    await a.workers.noted.until_true(lambda: len(a.faults) >= 3, lambda: a.faults)
