"""Scenarios run in processes of their own, several at a time, each process with servers of its own."""

import asyncio
import logging
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from multiprocessing.util import Finalize

from account import Account, account
from releases import rabbitmq_node
from run import heal, run
from scenarios import SCENARIOS

from holdfast.testing.servers import Node, redis_node

_servers: list[Node] = []
_opened = ExitStack()


@contextmanager
def lanes(count: int, seeds: dict[str, int]) -> Iterator[dict[str, Future[Account]]]:
    """Run the scenarios of these names, each with its seed, in `count` processes. Their accounts come as they end."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, mp_context=context, initializer=_open) as pool:
        yield {name: pool.submit(_one, name, seed) for name, seed in seeds.items()}
        pool.shutdown(cancel_futures=True)


def _open() -> None:
    """Start the servers of this process, and stop them at its end."""
    Finalize(None, _opened.close, exitpriority=1)
    logging.disable(logging.CRITICAL)  # the ledgers report what breaks on purpose
    _servers[:] = _opened.enter_context(rabbitmq_node()), _opened.enter_context(redis_node())


def _one(name: str, seed: int) -> Account:
    try:
        return account(asyncio.run(run(SCENARIOS[name], *_servers, seed)))
    except Exception:
        heal(*_servers)
        raise
