"""The figures of docs/performance.md are those of a run."""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_tables_are_those_of_the_results_that_are_kept() -> None:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from report import with_figures  # type: ignore[import-not-found]

    page = (ROOT / "docs" / "performance.md").read_text()

    assert with_figures(page, json.loads((ROOT / "benchmarks" / "results.json").read_text())) == page
