"""Writes the tables of docs/performance.md from the figures of a run.

python benchmarks/report.py benchmarks/results.json docs/performance.md
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

from scenarios import SCENARIOS

BEGIN, END = "<!-- figures -->\n", "<!-- end of figures -->"
NAMES = {"aio_pika": "aio-pika", "c": "C, librabbitmq", "holdfast": "**Holdfast**", "faststream": "FastStream"}


def tables(found: dict[str, Any]) -> str:
    """One table for each scenario; `times` is how much faster Holdfast is."""
    parts = []
    for name, contenders in found["scenarios"].items():
        scenario = SCENARIOS[name]
        latency = scenario.job.rate > 0
        rate = {who: figures["count"] / figures["seconds"] for who, figures in contenders.items()}
        heads = ["", "messages/s", "times", "CPU ms/1000", "peak MB", *(["p50 ms", "p99 ms", "p99.9 ms"] * latency)]
        lines = [f"**{name}**: {scenario.title}", "", row(heads), row(["---"] + ["--:"] * (len(heads) - 1))]
        for who, figures in contenders.items():
            cells = [
                NAMES.get(who, who),
                f"{rate[who]:,.0f}",
                f"{rate['holdfast'] / rate[who]:.1f}",
                f"{figures['cpu'] / figures['count'] * 1e6:.0f}",
                f"{figures['peak']:.0f}",
            ]
            cells += [f"{figures[key] * 1000:.2f}" for key in ("p50", "p99", "p999") if latency]
            lines.append(row(cells))
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def with_figures(page: str, found: dict[str, Any]) -> str:
    """The page with the tables between its marks."""
    return re.sub(f"{BEGIN}.*?{END}", lambda _: f"{BEGIN}{tables(found)}{END}", page, flags=re.DOTALL)


if __name__ == "__main__":
    results, page = Path(sys.argv[1]), Path(sys.argv[2])
    page.write_text(with_figures(page.read_text(), json.loads(results.read_text())))
