"""The figures of docs/performance.md are those of a run."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_tables_are_those_of_the_results_that_are_kept(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    shutil.copy(ROOT / "docs" / "performance.md", page)

    report = [
        sys.executable,
        str(ROOT / "benchmarks" / "report.py"),
        str(ROOT / "benchmarks" / "results.json"),
        str(page),
    ]
    subprocess.run(report, check=True)

    assert page.read_text() == (ROOT / "docs" / "performance.md").read_text()
