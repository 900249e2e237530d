"""The pytest plugin as users have it: their own test file, in a pytest of its own."""

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

SHOP = """
import pytest
from holdfast import Event, Worker

class Placed(Event, type="plugin.placed"):
    order_id: str

worker_of_the_shop = Worker("shop")

@worker_of_the_shop.handler(Placed)
async def charge(event):
    assert event.order_id != "bad", "no such order"

@pytest.fixture
def worker():
    return worker_of_the_shop

@pytest.mark.asyncio
async def test_good(harness):
    await harness.publish(Placed(order_id="good"))
    await harness.settle()
    assert len(harness.handled) == 1

@pytest.mark.asyncio
async def test_bad(harness):
    await harness.publish(Placed(order_id="bad"))
    await harness.settle()
"""


def test_a_user_s_test_has_the_fixture_and_is_shown_both_tracebacks(tmp_path: Path) -> None:
    (tmp_path / "test_shop.py").write_text(SHOP)

    by_name = not any(point.value == "holdfast.testing.plugin" for point in entry_points(group="pytest11"))
    plugin = ["-p", "holdfast.testing.plugin"] if by_name else []

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *plugin],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert "1 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    assert 'assert event.order_id != "bad", "no such order"' in done.stdout
    assert "await harness.settle()" in done.stdout
    assert "HandlerFailed: handler 'charge', attempt 1 of plugin.placed: AssertionError: no such order" in done.stdout
