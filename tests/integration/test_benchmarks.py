"""The benchmarks run, with next to no messages: their figures are taken elsewhere."""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).parents[2] / "benchmarks" / "run.py"
SCENARIOS = [
    "consume-classic", "consume-quorum", "consume-headers", "consume-idempotent", "publish-1", "publish-100",
    "publish-1000", "chain", "latency", "processes-2", "backlog-1000", "handlers-20", "sleeping-20", "body-1000000",
]  # fmt: skip
"""One of each kind."""


@pytest.mark.timeout(300)
async def test_holdfast_can_be_measured_in_every_scenario(rabbitmq_url: str, redis_url: str, tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"

    process = await asyncio.create_subprocess_exec(
        sys.executable, str(RUN), *SCENARIOS, "--smallest", "--only", "holdfast", "--json", str(figures),
        env=os.environ | {"HOLDFAST_TEST_RABBITMQ_URL": rabbitmq_url, "HOLDFAST_TEST_REDIS_URL": redis_url},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    told, _ = await process.communicate()

    assert process.returncode == 0, told.decode()
    measured = json.loads(figures.read_text())["scenarios"]
    assert [measured[scenario]["holdfast"]["count"] >= 6 for scenario in SCENARIOS] == [True] * len(SCENARIOS)


@pytest.mark.parametrize("program", [("stages.py",), ("instructions.py", "--once")], ids=" ".join)
async def test_the_stages_and_the_instructions_of_a_message_can_be_measured(program: tuple[str, ...]) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(RUN.with_name(program[0])),
        *program[1:],
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told, _ = await process.communicate()

    assert process.returncode == 0, told.decode()


@pytest.mark.timeout(300)
async def test_order_and_changes_of_owner_can_be_measured(rabbitmq_url: str, redis_url: str) -> None:
    small = ("--count", "200", "--keys", "100", "--rounds", "1", "--parked", "50")

    process = await asyncio.create_subprocess_exec(
        sys.executable, str(RUN.with_name("order.py")), *small,
        env=os.environ | {"HOLDFAST_TEST_RABBITMQ_URL": rabbitmq_url, "HOLDFAST_TEST_REDIS_URL": redis_url},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await process.communicate()

    assert process.returncode == 0, output.decode()
    for words in ("ordered to unordered", "1 % of the keys failing", "stands still, SIGKILL", "50 parked, SIGTERM"):
        assert words in output.decode()


async def test_followed_requests_can_be_measured(rabbitmq_url: str, redis_url: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(RUN.with_name("following.py")), "--count", "20", "--rounds", "1",
        env=os.environ | {"HOLDFAST_TEST_RABBITMQ_URL": rabbitmq_url, "HOLDFAST_TEST_REDIS_URL": redis_url},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await process.communicate()

    assert process.returncode == 0, output.decode()
    assert output.decode().count("followed to unfollowed") == 2
    assert "the last request is done" in output.decode()
