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
NAMES = {
    "aio_pika": "aio-pika",
    "c": "C, librabbitmq",
    "holdfast": "**Holdfast**",
    "holdfast_pure": "Holdfast, pure Python",
    "faststream": "FastStream",
}


def tables(found: dict[str, Any]) -> str:
    """One table for each scenario with peers, and one for all in which Holdfast is alone."""
    scenarios = found["scenarios"]
    compared = [_compared(name, contenders) for name, contenders in scenarios.items() if len(contenders) > 1]
    alone = {name: contenders["holdfast"] for name, contenders in scenarios.items() if len(contenders) == 1}
    return "\n\n".join(compared + [_alone(alone)] * bool(alone)) + "\n"


def _compared(name: str, contenders: dict[str, Any]) -> str:
    """`times` is how much faster Holdfast is."""
    scenario = SCENARIOS[name]
    latency = scenario.job.rate > 0
    rate = {who: figures["count"] / figures["seconds"] for who, figures in contenders.items()}
    heads = ["", "messages/s", "times", "CPU ms/1000", "peak MB", *(["p50 ms", "p99 ms", "p99.9 ms"] * latency)]
    lines = [f"**{name}**: {scenario.title}", "", row(heads), row(["---"] + ["--:"] * (len(heads) - 1))]
    for who, figures in contenders.items():
        cells = [NAMES.get(who, who), f"{rate[who]:,.0f}", f"{rate['holdfast'] / rate[who]:.1f}", *_cost(figures)]
        cells += [f"{figures[key] * 1000:.2f}" for key in ("p50", "p99", "p999") if latency]
        lines.append(row(cells))
    return "\n".join(lines)


def _alone(found: dict[str, Any]) -> str:
    heads = ["Holdfast alone", "messages/s", "CPU ms/1000", "peak MB"]
    rows = [
        row([SCENARIOS[name].title, f"{figures['count'] / figures['seconds']:,.0f}", *_cost(figures)])
        for name, figures in found.items()
    ]
    return "\n".join([row(heads), row(["---"] + ["--:"] * 3), *rows])


def _cost(figures: dict[str, Any]) -> list[str]:
    return [f"{figures['cpu'] / figures['count'] * 1e6:.0f}", f"{figures['peak']:.0f}"]


def row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def with_figures(page: str, found: dict[str, Any]) -> str:
    """The page with the tables between its marks."""
    return re.sub(f"{BEGIN}.*?{END}", lambda _: f"{BEGIN}{tables(found)}{END}", page, flags=re.DOTALL)


if __name__ == "__main__":
    results, page = Path(sys.argv[1]), Path(sys.argv[2])
    page.write_text(with_figures(page.read_text(), json.loads(results.read_text())))
