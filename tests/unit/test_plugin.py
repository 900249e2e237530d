"""The pytest plugin as users have it: their own test file, in a pytest of its own."""

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

from apps import copy_app


def test_a_user_s_test_has_the_fixture_and_is_shown_both_tracebacks(tmp_path: Path) -> None:
    copy_app("users_test", tmp_path, "test_shop")

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
