"""Whose signal is it? Those of the worker count once, at any time; those of its children are their own."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from apps import APPS, copy_app
from child_app import Task as Waiting
from children import a_child
from commands import Running, environment
from family import Task
from running import a_broker, publish_all, take
from waiting import LIMIT

from holdfast import Settings
from holdfast.testing.servers import free_port


@contextmanager
def hesitating(folder: Path, where: str) -> Iterator[Running]:
    """A worker that has come to where it hangs."""
    copy_app("hesitating", folder, HANGS=where)
    env = environment(HOLDFAST_BROKER__URL="memory://")
    with Running("run", "app:worker", folder=folder, env=env) as worker:
        worker.until(lambda log: where in log or "consumer.attached" in log)
        yield worker


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@pytest.mark.parametrize("where", ["importing", "entering"])
def test_a_signal_before_anything_was_taken_ends_the_worker(tmp_path: Path, where: str, number: signal.Signals) -> None:
    with hesitating(tmp_path, where) as worker:
        code = worker.stop(number)

    assert code == 0
    assert ("cancelled" in worker.log) is (where == "entering")


def test_a_lifespan_that_does_not_leave_is_ended_by_the_second_signal(tmp_path: Path) -> None:
    with hesitating(tmp_path, "leaving") as worker:
        worker.process.send_signal(signal.SIGTERM)
        worker.until(lambda log: "leaving" in log)
        code = worker.stop()

    assert code == 1
    assert "cancelled" in worker.log


async def test_sighup_drains_and_never_means_at_once(settings: Settings) -> None:
    async with a_child(settings) as child:
        await publish_all(settings, [Waiting(name="o-1", does="wait")])
        await child.until("began o-1")
        child.send(signal.SIGHUP)
        await child.until("draining")
        child.send(signal.SIGHUP)
        child.let_go()
        code = await child.ended()

    assert (code, child.those("settled"), child.those("cancelled")) == (0, ["settled handled"], [])


async def test_a_signal_to_the_worker_and_to_its_pool_of_processes_counts_once(settings: Settings) -> None:
    async with a_child(settings, "family", queues=1) as child:
        await publish_all(settings, [Task(does="fill a pool")])
        await child.until("member", count=2)
        for said in child.those("member"):
            os.kill(int(said.split()[1]), signal.SIGTERM)
        child.send(signal.SIGTERM)
        code = await child.ended()

    assert (code, child.those("settled")) == (0, ["settled postponed"])  # a pool that broke is a failure like any


async def test_a_child_that_a_handler_ends_does_not_drain_the_worker(settings: Settings) -> None:
    async with a_child(settings, "family", queues=1) as child:
        await publish_all(settings, [Task(does="end a child")] * 2)
        await child.until("settled handled", count=2)
        child.send(signal.SIGTERM)
        code = await child.ended()

    assert (code, child.those("exit code")) == (0, [f"exit code -{signal.SIGTERM:d}"] * 2)


async def test_a_killed_workers_message_is_back_at_once_though_its_child_lives(settings: Settings) -> None:
    """The heartbeat is as long as it can be: only the end of the connection tells the broker."""
    port, queue = str(free_port()), f"{settings.broker.exchange}.w.handle"
    alone = {"HOLDFAST_BROKER__HEARTBEAT": "3600", "HOLDFAST_HTTP__PORT": port}
    async with a_child(settings, "family", queues=1, **alone) as child, a_broker(settings) as broker:
        await publish_all(settings, [Task(does="leave a child")])
        await child.until("child")
        orphan = int(child.those("child")[0].split()[1])
        try:
            child.send(signal.SIGKILL)
            [message] = await take(broker, queue, 1)
            async with a_child(settings, "family", queues=1, **alone) as again:  # the port of the probes is free too
                again.send(signal.SIGTERM)
                assert await again.ended() == 0
            os.kill(orphan, 0)  # it lives
        finally:
            with suppress(ProcessLookupError):
                os.kill(orphan, signal.SIGKILL)

    assert b"leave a child" in message.body


async def test_the_command_of_an_init_has_the_terminal() -> None:
    program = await asyncio.create_subprocess_exec(sys.executable, APPS / "terminal.py", stdout=PIPE)
    assert program.stdout is not None

    assert await asyncio.wait_for(program.stdout.readline(), LIMIT) == b"0\n"
    assert await program.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
async def test_an_init_hands_signals_on_reaps_orphans_and_ends_as_its_command(number: signal.Signals) -> None:
    first = await asyncio.create_subprocess_exec(sys.executable, APPS / "first.py", stdout=PIPE)
    assert first.stdout is not None

    reaped = await asyncio.wait_for(first.stdout.readline(), LIMIT)
    first.send_signal(number)
    heard = await asyncio.wait_for(first.stdout.readline(), LIMIT)

    assert (reaped, heard) == (b"orphan reaped, own child's code 3\n", f"heard {number.name}\n".encode())
    assert await first.wait() == 7
