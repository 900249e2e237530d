"""Writes docs/reliability.md from what runs wrote: `python tests/faults/report.py .faults/results.jsonl ...`."""

import json
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

Run = dict[str, Any]
PAGE = Path(__file__).parent.parent.parent / "docs" / "reliability.md"

HEAD = """# What was broken, and what became of every event

Holdfast's fault suite runs workers in processes of their own, breaks them, their broker, their Redis and the network
between them while events are published, heals everything, and accounts for every event from ledgers that nothing of
this can touch: what the publisher was told, what handlers did (a line in a file, written the moment it is done), what
was broken and when, and what is in the dead-letter queues. The checker is itself proven: `make prove` puts six faults
that lose or repeat messages into a copy of Holdfast, and each has to be caught.

*Lost*: confirmed to the publisher, and neither handled nor a dead letter. *Repeats*: effects that came again, each
accounted for by a fault that says why (a process killed between its effect and its completion; claims or leases lost);
one that no fault explains is a violation. *Recovery*: from the last fault healed to the last event of before handled,
the longest of all runs. No failures in n runs bound the rate of failures by about 3/n: n is small in most rows.

This page is written by `tests/faults/report.py` from the result files of runs. To run again:

- `make faults`: every scenario once. `make faults SEED=7 ONLY="redis is killed"` repeats one with the same draws.
- `make faults BROKERS=3.10,4.0,4.3`: on each release. `make faults CLUSTER=1`: clusters of three, as root.
- `make soak RUNS=20`: every scenario 20 times. `make soak MINUTES=30`: faults at random, in combination.
- `make prove`: the six mutations.
"""

FOUND = """## What was found

- **Mended.** A connection lost while the worker declared its queues again was noticed after 30 s only: the client
  library lets whoever waits for an answer on such a channel wait for all of his time-out. Meanwhile no retry and no
  dead letter could be written (they were held, nothing was lost). Found by *connections are cut at random moments*.
- **Open.** After a node of a 3.10.8 cluster was killed, 10 retries of 300 events were not back within a minute of its
  return. They had been confirmed into the delay queues. RabbitMQ's own dead-lettering tries again after 3 minutes what
  was under way when a node died (`dead_letter_worker_publisher_confirm_timeout`); whether that is all there is to it
  was not seen to the end, so the run below counts them as lost. Runs of clusters wait longer since.
- **The suite's own.** A handler that ignores its cancellation takes effect after its time-out and again in its retry;
  the scenario now ends such a handler with a failure. A delayed event that comes due while its queue is deleted is in
  `holdfast.unrouted`, and is counted there now. A first soak of 4 minutes on a busy machine was closed a minute after
  its last fault, with 14,637 events still in their queue; a soak waits longer now, and its figures are not in the
  table.
"""


def page(runs: list[Run]) -> str:
    """The page about these runs."""
    by_scenario: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        by_scenario[run["scenario"]].append(run)
    brokers = Counter(run["broker"] for run in runs)
    totals = (
        f"In all: {len(runs)} runs, {sum(run['events'] for run in runs):,} events, "
        f"{sum(sum(run['faults'].values()) for run in runs):,} faults, "
        f"{sum(run['lost'] for run in runs)} lost, {sum(sum(run['repeats'].values()) for run in runs)} repeats. "
        f"Runs on RabbitMQ {', '.join(f'{name} ({count})' for name, count in sorted(brokers.items()))}."
    )
    table = [
        "| scenario | runs | events | faults | lost | repeats | recovery, s | violations |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    table += [_row(name, of) for name, of in by_scenario.items()]
    return "\n".join([HEAD, "## Runs", "", totals, "", *table, "", FOUND, *_violations(runs), *_growth(runs)])


def _row(name: str, runs: list[Run]) -> str:
    repeats = Counter[str]()
    for run in runs:
        repeats.update(run["repeats"])
    told = ", ".join(f"{count} ({what})" for what, count in repeats.items()) or "0"
    figures = (
        len(runs),
        sum(run["events"] for run in runs),
        sum(sum(run["faults"].values()) for run in runs),
        sum(run["lost"] for run in runs),
        told,
        f"{max(run['recovery'] for run in runs):.1f}",
        sum(len(run["violations"]) for run in runs),
    )
    return f"| {name} | " + " | ".join(map(str, figures)) + " |"


def _violations(runs: list[Run]) -> list[str]:
    """Each run that did not add up, with its seed."""
    broken = [run for run in runs if run["violations"]]
    if not broken:
        return []
    lines = ["## Runs that did not add up", ""]
    for run in broken:
        kinds = Counter(violation["invariant"] for violation in run["violations"])
        told = ", ".join(f"{count} of {kind}" for kind, count in kinds.items())
        first = run["violations"][0]["text"].split(" in f")[0]
        lines.append(f"- {run['scenario']}, RabbitMQ {run['broker']}, seed {run['seed']}: {told}; the first: {first}")
    return [*lines, ""]


def _growth(runs: list[Run]) -> list[str]:
    weighed = [run for run in runs if run["growth"]]
    if not weighed:
        return []
    lines = [
        "## What a worker holds before and after a soak",
        "",
        "| soak | figure | before | after |",
        "|---|---|--:|--:|",
    ]
    for run in weighed:
        name = f"{run['seconds'] / 60:.0f} minutes, RabbitMQ {run['broker']}, seed {run['seed']}"
        for growth in run["growth"]:
            figure = growth["of"].split(" of ")[0] + (", KiB" if growth["of"].startswith("memory") else "")
            lines.append(f"| {name} | {figure} | {growth['before']} | {growth['after']} |")
    return [*lines, ""]


if __name__ == "__main__":
    lines = [line for name in sys.argv[1:] for line in Path(name).read_text().splitlines()]
    PAGE.write_text(page([json.loads(line) for line in lines]))
