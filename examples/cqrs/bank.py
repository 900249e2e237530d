"""The whole application in one process: both workers, a few commands, and what the read side says in the end.

    HOLDFAST_SQL__KEEP=forever HOLDFAST_BROKER__URL=memory:// python bank.py
    HOLDFAST_SQL__KEEP=forever HOLDFAST_BROKER__URL=amqp://guest:guest@localhost:5672/ python bank.py

Nothing but the broker's variable differs. On RabbitMQ the two workers may as well be processes of their own:
`holdfast run write_side:worker` and `holdfast run read_side:worker`.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import read_side
import write_side
from messages import Command, Deposit, Withdraw

from holdfast import Publisher, Worker

COMMANDS: list[Command] = [
    Deposit(account="ann", cents=500),
    Deposit(account="bob", cents=100),
    Withdraw(account="ann", cents=120),
    Withdraw(account="bob", cents=300),
]


@asynccontextmanager
async def running(*workers: Worker) -> AsyncIterator[None]:
    """Workers in this process, from when they take messages until the block ends; they drain then."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(worker.run()) for worker in workers]
        try:
            await until(
                lambda: all(worker.health().ready or task.done() for worker, task in zip(workers, tasks, strict=True))
            )
            yield
        finally:
            for worker in workers:
                worker.stop()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 (another process may write the file)
        await asyncio.sleep(0.05)


async def main() -> None:
    write_side.make_tables()
    before = read_side.entries()
    async with running(write_side.worker, read_side.worker), Publisher(source="bank") as publisher:
        for command in COMMANDS:
            await publisher.publish(command)
        await until(lambda: read_side.entries() >= before + len(COMMANDS))
    print(read_side.balances())


if __name__ == "__main__":
    asyncio.run(main())
