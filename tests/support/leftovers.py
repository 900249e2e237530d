"""What a test leaves behind is a defect: what a task raised and nobody heard of, and a connection that nobody closed.

It fails the test in which it is found. Asyncio reports a task when it is collected: at times in a later test.
"""

import logging
from collections.abc import Iterator
from typing import Any

import aio_pika
import pytest


class _Said(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if "never retrieved" in record.getMessage():
            self.texts.append(self.format(record))


_said = _Said()
logging.getLogger("asyncio").addHandler(_said)
_opened = list[aio_pika.Connection]()
_connect = aio_pika.Connection.connect


async def _connect_and_note(self: aio_pika.Connection, *arguments: Any, **options: Any) -> None:
    await _connect(self, *arguments, **options)
    _opened.append(self)


aio_pika.Connection.connect = _connect_and_note  # type: ignore[method-assign] # it is watched, and does what it did


@pytest.fixture(autouse=True)
def nothing_unheard() -> Iterator[None]:
    _said.texts.clear()
    yield
    assert not _said.texts, "\n".join(_said.texts)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Iterator[None]:
    yield
    left = [str(connection) for connection in _opened if not connection.close_called]
    _opened.clear()
    assert not left, f"these connections were opened and not closed: {left}"
