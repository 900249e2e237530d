"""Runs fault scenarios and writes one line for each run: `python tests/faults/run.py --help`.

Each run has a seed; the same seed draws the same load and the same moments. A run that does not add up leaves its
ledgers beside the results.
"""

import argparse
import asyncio
import json
import logging
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "support"), str(HERE.parent / "apps")]

from account import Account, account  # noqa: E402
from arena import QUIET, an_arena  # noqa: E402
from cluster import Cluster, a_cluster  # noqa: E402
from console import ConsoleRabbitMQ  # noqa: E402
from ledgers import Book, as_json  # noqa: E402
from lives import Violation  # noqa: E402
from redis_pair import a_pair  # noqa: E402
from releases import release_in  # noqa: E402
from scenarios import SCENARIOS, Scenario  # noqa: E402
from soak import soak  # noqa: E402

from holdfast.testing.servers import Node, private_rabbitmq, private_redis  # noqa: E402

VERSIONS = {"3.10": None, "4.0": "trixie", "4.3": "sid"}


async def run(scenario: Scenario, broker: Node, claims: Node, seed: int, patience: float = QUIET) -> Book:
    """One run of a scenario, as its ledgers. It comes to rest within `patience` seconds, or is closed as it is."""
    urls = broker.urls if isinstance(broker, Cluster) else None
    with (
        tempfile.TemporaryDirectory(prefix="holdfast-faults-", ignore_cleanup_errors=True) as folder,
        a_pair() if scenario.pair else nullcontext(claims) as store,
    ):
        start = {"point": scenario.point, "urls": urls, "partitions": scenario.partitions}
        async with an_arena(broker, store, seed, Path(folder), **start) as arena:  # type: ignore[arg-type]
            arena.patience = patience
            if scenario.cluster:
                arena.grant_the_brokers_timer()
            try:
                await scenario.act(arena)
            finally:
                heal(broker, store)
            return await arena.account_book()


def heal(*nodes: Node) -> None:
    for node in nodes:
        node.resume()
        node.start()


class Results:
    """A file with one line for each run."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self.failed = 0

    def add(self, name: str, row: str, seed: int, version: str, seconds: float, book: Book, told: Account) -> None:
        line = {
            "scenario": name, "row": row, "seed": seed, "broker": version, "seconds": round(seconds, 1),
            "events": told.events, "confirmed": told.confirmed, "unknown": told.unknown, "effects": told.effects,
            "dead": told.dead, "faults": Counter(fault.what for fault in book.faults), "lost": told.lost,
            "repeats": Counter(repeat.fault for repeat in told.repeats), "both": len(told.both),
            "recovery": round(told.recovery, 2), "violations": [_as_result(one) for one in told.violations],
            "growth": [asdict(one) for one in book.ending.growth],
        }  # fmt: skip
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        verdict = f"{len(told.violations)} VIOLATIONS" if told.violations else "adds up"
        figures = (
            f"{told.events} events, {told.faults} faults, {len(told.repeats)} repeats, back in {told.recovery:.1f} s"
        )
        print(f"{version:7} {name}, seed {seed}: {verdict} ({figures}; {seconds:.0f} s)", flush=True)
        if told.violations:
            self.failed += 1
            for violation in told.violations[:10]:
                print(f"    {violation.invariant} {violation.subject}: {violation.text}", flush=True)
            kept = f"{re.sub(r'[^a-z]+', '-', name)}-{seed}.json"
            self._path.with_name(kept).write_text(as_json(book))


def _as_result(violation: Violation) -> dict[str, str]:
    return asdict(violation) | {"invariant": violation.invariant.value}


@contextmanager
def brokers(versions: list[str], folder: Path | None, *, cluster: bool) -> Iterator[Iterator[tuple[str, Node]]]:
    """A private node of each version, or a cluster of three, one after the other."""

    def each() -> Iterator[tuple[str, Node]]:
        for version in versions:
            release = VERSIONS[version]
            if release is not None and folder is None:
                sys.exit(
                    f"RabbitMQ {version}: say with --folder where the releases are (scripts/brokers.py makes them)"
                )
            programs = release_in(folder / release) if folder and release else None
            with a_cluster(programs) if cluster else private_rabbitmq(programs, ConsoleRabbitMQ) as node:
                yield node.ctl("version").strip() + (" x3" if cluster else ""), node

    yield each()


def main() -> int:
    options = arguments()
    logging.getLogger().addHandler(logging.NullHandler())
    for name in ("aiormq", "asyncio"):  # what breaks on purpose is told by the ledgers
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    known = {name: scenario for name, scenario in SCENARIOS.items() if options.cluster or not scenario.cluster}
    if options.cluster and not options.only:
        known = {name: scenario for name, scenario in known.items() if scenario.cluster}
    names = [name for name in known if any(part in name for part in options.only or [""])]
    if not names:
        sys.exit("no scenario has such a name; they are:\n  " + "\n  ".join(SCENARIOS))
    results, luck = Results(options.results), random.Random(options.seed)
    print(f"seed {options.seed}", flush=True)
    with private_redis() as claims, brokers(options.brokers, options.folder, cluster=options.cluster) as nodes:
        for version, node in nodes:
            if options.minutes:
                asyncio.run(_soak(node, claims, version, luck.getrandbits(32), options, results))
                continue
            for _ in range(options.runs):
                for name in names:
                    seed = options.seed if options.runs == 1 else luck.getrandbits(32)
                    _one(SCENARIOS[name], node, claims, version, seed, results, options.patience)
    return 1 if results.failed else 0


def _one(
    scenario: Scenario, node: Node, claims: Node, version: str, seed: int, results: Results, patience: float
) -> None:
    begin = time.monotonic()
    try:
        book = asyncio.run(run(scenario, node, claims, seed, patience))
    except Exception as error:  # noqa: BLE001 (told, and the next scenario goes on)
        results.failed += 1
        print(f"{version:7} {scenario.name}, seed {seed}: BROKEN OFF by {type(error).__name__}: {error}", flush=True)
        heal(node, claims)
        return
    results.add(scenario.name, scenario.row, seed, version, time.monotonic() - begin, book, account(book))


async def _soak(node: Node, claims: Node, version: str, seed: int, options: Any, results: Results) -> None:
    begin = time.monotonic()
    book = await soak(node, claims, seed, minutes=options.minutes, rate=options.rate)
    results.add("random soak", "several at once", seed, version, time.monotonic() - begin, book, account(book))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32), help="draws everything")
    parser.add_argument("--only", action="append", help="scenarios whose name has this in it; may be repeated")
    parser.add_argument("--runs", type=int, default=1, help="of each scenario, with different seeds")
    parser.add_argument("--minutes", type=float, default=0.0, help="a random soak of so many minutes instead")
    parser.add_argument("--rate", type=float, default=150.0, help="events a second in a soak")
    parser.add_argument("--patience", type=float, default=QUIET, help="seconds a run may take to come to rest")
    parser.add_argument("--brokers", type=lambda text: text.split(","), default=["3.10"], help="of 3.10,4.0,4.3")
    parser.add_argument("--cluster", action="store_true", help="three nodes each, and what happens to clusters (root)")
    parser.add_argument("--folder", type=Path, help="where the other releases are, as scripts/brokers.py makes them")
    parser.add_argument("--results", type=Path, default=Path(".faults/results.jsonl"), help="the file to append to")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
