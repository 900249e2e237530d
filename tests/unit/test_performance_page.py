"""The figures of docs/performance.md and of the README are those of a run."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_tables_are_those_of_the_results_that_are_kept(tmp_path: Path) -> None:
    pages = ROOT / "docs" / "performance.md", ROOT / "README.md"
    copies = [Path(shutil.copy(page, tmp_path)) for page in pages]

    report = [ROOT / "benchmarks" / "report.py", ROOT / "benchmarks" / "results.json", *copies]
    subprocess.run([sys.executable, *map(str, report)], check=True)

    assert [copy.read_text() for copy in copies] == [page.read_text() for page in pages]
