"""A worker for a process of its own whose handler forks: a child that lives on, one that it ends, a pool."""

import asyncio
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Literal

from child_app import MARK, say, settings, tell

from holdfast import Event, Worker

FORK = multiprocessing.get_context("fork")


class Task(Event, type="task"):
    does: Literal["leave a child", "end a child", "fill a pool"]


worker = Worker(f"{settings.broker.exchange}.w", settings=settings, listeners=[tell])


@worker.handler(Task)
async def handle(event: Task) -> None:
    match event.does:
        case "leave a child":
            child = FORK.Process(target=time.sleep, args=(600,))
            child.start()
            say("child", child.pid)
            await asyncio.Event().wait()
        case "end a child":
            child = FORK.Process(target=time.sleep, args=(600,))
            child.start()
            child.terminate()
            await asyncio.to_thread(child.join)
            say("exit code", child.exitcode)
        case "fill a pool":
            with ProcessPoolExecutor(2, FORK) as pool:
                loop = asyncio.get_running_loop()
                await asyncio.gather(*(loop.run_in_executor(pool, member) for _ in range(2)))


def member() -> None:
    os.write(1, f"{MARK}member {os.getpid()}\n".encode())  # in one piece: the other one writes as well
    time.sleep(600)
