"""Writes the tables of docs/performance.md and of the README from the figures of a run.

python benchmarks/report.py benchmarks/results.json docs/performance.md README.md
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

from scenarios import SCENARIOS

BEGIN, END = "<!-- figures -->\n", "<!-- end of figures -->"
SUMMARY = {
    "consume-quorum": "consume, quorum queue",
    "consume-classic": "consume, classic queue",
    "consume-idempotent": "consume, each event claimed in Redis",
    "publish-100": "publish, 100 in flight",
    "publish-1": "publish, one by one",
}
"""The scenarios that the README shows; one that was measured in another sitting than the first is left out."""

NAMES = {
    "aio_pika": "aio-pika",
    "c": "C, librabbitmq",
    "holdfast": "**Holdfast**",
    "holdfast_pure": "Holdfast, pure Python",
    "faststream": "FastStream",
    "taskiq": "TaskIQ",
    "celery": "Celery",
    "dramatiq": "Dramatiq",
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


def summary(found: dict[str, Any]) -> str:
    """One table of messages a second: a row for each contender, a column for each scenario of `SUMMARY`."""
    older = found["circumstances"].get("older", {}).get("scenarios", [])
    columns = {name: found["scenarios"][name] for name in SUMMARY if name not in older}
    who = list(dict.fromkeys(one for contenders in columns.values() for one in contenders))
    lines = [row(["messages/s", *(SUMMARY[name] for name in columns)]), row(["---"] + ["--:"] * len(columns))]
    for one in who:
        rates = [_rate(contenders[one]) if one in contenders else "" for contenders in columns.values()]
        lines.append(row([NAMES.get(one, one), *rates]))
    return "\n".join([*lines, "", _circumstances(found, who), ""])


def _circumstances(found: dict[str, Any], who: list[str]) -> str:
    about = found["circumstances"]
    versions = {name: about["libraries"].get(name.replace("_", "-")) for name in who}
    peers = ", ".join(f"{NAMES.get(name, name)} {version}" for name, version in versions.items() if version)
    machine = f"{about['machine']}, Python {about['python']}, {about['broker']}, {about['loop']}"
    return f"Medians of {found['runs']} runs on {about['taken'][:10]}: {machine}; {peers}."


def _rate(figures: dict[str, Any]) -> str:
    return f"{figures['count'] / figures['seconds']:,.0f}"


def _cost(figures: dict[str, Any]) -> list[str]:
    return [f"{figures['cpu'] / figures['count'] * 1e6:.0f}", f"{figures['peak']:.0f}"]


def row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def with_figures(page: str, figures: str) -> str:
    """The page with the tables between its marks."""
    return re.sub(f"{BEGIN}.*?{END}", lambda _: f"{BEGIN}{figures}{END}", page, flags=re.DOTALL)


if __name__ == "__main__":
    results = json.loads(Path(sys.argv[1]).read_text())
    for page, figures in zip(map(Path, sys.argv[2:4]), (tables, summary), strict=True):
        page.write_text(with_figures(page.read_text(), figures(results)))
