"""How many functions of the product a message passes through is bounded (`make hops` prints them)."""

import subprocess
import sys

import pytest
from pages import ROOT

BOUNDS = {"a message handled": 60, "a message to be tried again": 130, "an event published": 40}
"""The most functions for each. A list comprehension counts as one, as it does on Python 3.11."""


@pytest.fixture(scope="module")
def counts(rabbitmq_url: str, redis_url: str) -> dict[str, int]:
    """The functions entered on each path."""
    servers = {"HOLDFAST_TEST_RABBITMQ_URL": rabbitmq_url, "HOLDFAST_TEST_REDIS_URL": redis_url}
    program = [sys.executable, ROOT / "benchmarks" / "hops.py", "--counts"]
    ended = subprocess.run(program, env=servers, capture_output=True, text=True, timeout=100, check=True)
    lines = (line.partition(": ") for line in ended.stdout.splitlines())
    return {path: int(figures.split()[0]) for path, _, figures in lines}


@pytest.mark.pure
@pytest.mark.parametrize("path", BOUNDS)
def test_a_path_enters_no_more_functions_than_its_bound(path: str, counts: dict[str, int]) -> None:
    assert 0 < counts[path] <= BOUNDS[path]
