"""What a task raised and nobody heard of is a defect: it fails the test in which asyncio reports it."""

import logging
from collections.abc import Iterator

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


@pytest.fixture(autouse=True)
def nothing_unheard() -> Iterator[None]:
    """Asyncio reports it when the task is collected: at times in a later test than the one that began it."""
    _said.texts.clear()
    yield
    assert not _said.texts, "\n".join(_said.texts)
