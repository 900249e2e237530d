"""A worker that a program of its own runs, by `Worker.run`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from builders import some_settings
from offline import Paid, an_offline_worker

from holdfast import ConfigurationError, Worker
from holdfast.telemetry import SettingUnknown


@asynccontextmanager
async def ending() -> AsyncIterator[None]:
    raise RuntimeError("the worker began")
    yield


@pytest.mark.parametrize("concurrency", [0, 10_001, 1.5])
async def test_a_concurrency_that_the_setting_refuses_is_refused_in_one_line(concurrency: int) -> None:
    worker = Worker("w", settings=some_settings(), lifespan=ending)

    @worker.handler(Paid)
    async def handle(event: Paid) -> None: ...

    with pytest.raises(ConfigurationError, match=rf"^concurrency={concurrency}: should be [^\n]+$"):
        await worker.run(concurrency=concurrency)


async def test_a_variable_that_nothing_reads_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_WORKRE__GRACE", "5")
    offline = an_offline_worker()

    @offline.worker.handler(Paid)
    async def handle(event: Paid) -> None: ...

    async with offline.running():
        pass

    named = [fact.setting for fact in offline.of(SettingUnknown)]
    assert named == ["HOLDFAST_WORKRE__GRACE is not a setting; did you mean HOLDFAST_WORKER__GRACE?"]
