"""How many functions and files of the product a message passes through is bounded (`make hops` prints them)."""

import subprocess
import sys

import pytest
from pages import ROOT

BOUNDS = {"a message handled": (56, 20), "a message to be tried again": (126, 31), "an event published": (25, 13)}
"""The most functions and files for each. A list comprehension counts as a function, as it does on Python 3.11."""


@pytest.fixture(scope="module")
def counts(rabbitmq_url: str, redis_url: str) -> dict[str, tuple[int, int]]:
    """The functions entered on each path, and the files they are in."""
    servers = {"HOLDFAST_TEST_RABBITMQ_URL": rabbitmq_url, "HOLDFAST_TEST_REDIS_URL": redis_url}
    program = [sys.executable, ROOT / "benchmarks" / "hops.py", "--counts"]
    ended = subprocess.run(program, env=servers, capture_output=True, text=True, timeout=100, check=True)
    lines = (line.partition(": ") for line in ended.stdout.splitlines())
    words = {path: figures.split() for path, _, figures in lines}
    return {path: (int(functions), int(files)) for path, (functions, _, _, files, _) in words.items()}


@pytest.mark.pure
@pytest.mark.parametrize("path", BOUNDS)
def test_a_path_enters_no_more_functions_than_its_bound(path: str, counts: dict[str, tuple[int, int]]) -> None:
    assert 0 < counts[path][0] <= BOUNDS[path][0]


@pytest.mark.pure
@pytest.mark.parametrize("path", BOUNDS)
def test_a_path_leads_through_no_more_files_than_its_bound(path: str, counts: dict[str, tuple[int, int]]) -> None:
    assert 0 < counts[path][1] <= BOUNDS[path][1]
