"""The prover proven: seven faults of the kind that loses messages or their order, each put into a copy of Holdfast,
and the checker has to catch each. `python tests/faults/prove.py` prints what it caught; it fails where a mutation goes
unseen."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from invariants import Invariant

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
FOLDERS = [file.parent.name for file in ROOT.glob("*/__init__.py")]


@dataclass(frozen=True, slots=True)
class Mutation:
    """Replacements in a file, the scenario that has to show them, and one of the invariants that are broken then."""

    name: str
    file: str
    changes: tuple[tuple[str, str], ...]
    scenario: str
    breaks: Invariant


PIPELINE, SETTLE = "consumer/pipeline.py", "consumer/settle.py"
ACK = "    async def ack(self, delivery: Delivery) -> bool:\n"
SLOT = "        with flight.slot:\n"
RELEASE = """                if claim is not None:
                    await self.tools.claims.release(claim)
"""
COPY = "                await publish_copy(self.tools, self.spec.queue, event_id, self._postponed(flight, ending))\n"
TRIES_ONCE = """                asyncio.ensure_future(
                    self.tools.broker.publish(self._postponed(flight, ending), timeout=5)
                ).add_done_callback(lambda sent: sent.exception())
"""
CLAIMED = "                outcome = flight.claimed.outcome\n"
COMPLETED = """                if flight.claimed.claim is not None:
                    await self._tools.claims.complete(flight.claimed.claim)
"""
FLAGS = "(*parts, _MANDATORY)"

MUTATIONS = (
    Mutation(
        "auto-ack",
        "broker/amqp/consumer.py",
        (
            ("queue.consume(untapped,", "queue.consume(untapped, no_ack=True,"),
            (ACK, ACK + "        return True\n"),
        ),
        "workers are killed at random moments",
        Invariant.NOTHING_LOST,
    ),
    Mutation(
        "ack before the handler",
        PIPELINE,
        (
            (SLOT, SLOT + "            await flight.delivery.consumer.ack(flight.delivery)\n"),
            ("is_acked = await delivery.consumer.ack(delivery)", "is_acked = True"),
        ),
        "a worker is killed after claim",
        Invariant.NOTHING_LOST,
    ),
    Mutation(
        "no confirm on the retry copy",
        SETTLE,
        ((COPY, TRIES_ONCE),),
        "the lower delay levels are deleted",
        Invariant.NOTHING_LOST,
    ),
    Mutation(
        "dead letter not mandatory",
        "broker/codec.py",
        ((FLAGS, "(*parts, bytes(1) if key.endswith('.dead') else _MANDATORY)"),),
        "the dead letter queue is deleted",
        Invariant.NOTHING_LOST,
    ),
    Mutation(
        "mark before run",
        PIPELINE,
        ((CLAIMED, CLAIMED + COMPLETED),),
        "connections are cut at random moments",
        Invariant.NOTHING_LOST,
    ),
    Mutation(
        "release after republish",
        SETTLE,
        ((RELEASE + COPY, COPY + RELEASE),),
        "a worker is killed after confirm",
        Invariant.NO_CLAIM_STUCK,
    ),
    Mutation(
        "a new owner does not read the ledger",
        "consumer/ordering/ownership.py",
        ((".begin(backlog, self._from_queue.came)", ".begin(Backlog(desk), self._from_queue.came)"),),
        "owners of an ordered queue are killed",
        Invariant.NOTHING_LOST,
    ),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", help="mutations whose name has this in it")
    options = parser.parse_args()
    chosen = [mutation for mutation in MUTATIONS if (options.only or "") in mutation.name]
    missed = [mutation.name for mutation in chosen if not caught(mutation, options.seed)]
    print(f"{len(chosen) - len(missed)} of {len(chosen)} mutations caught")
    return 1 if missed else 0


def caught(mutation: Mutation, seed: int) -> bool:
    """Whether the checker tells of the invariant that the mutation breaks."""
    with tempfile.TemporaryDirectory(prefix="holdfast-mutant-") as folder:
        package = Path(folder) / "holdfast"
        package.mkdir()
        for name in FOLDERS:
            shutil.copytree(ROOT / name, package / name, ignore=shutil.ignore_patterns("__pycache__"))
        for file in (*ROOT.glob("*.py"), ROOT / "py.typed"):
            shutil.copy(file, package)
        mutate(package / mutation.file, mutation)
        results = Path(folder) / "results.jsonl"
        words = ("--only", mutation.scenario, "--seed", str(seed), "--patience", "12", "--results", str(results))
        environment = os.environ | {"PYTHONPATH": folder}
        ended = subprocess.run(
            [sys.executable, str(HERE / "run.py"), *words], env=environment, check=False, capture_output=True, text=True
        )
        if not results.exists():
            print(f"{mutation.name}: the run was broken off\n{ended.stdout}{ended.stderr}", flush=True)
            return False
        told = [violation for line in results.read_text().splitlines() for violation in json.loads(line)["violations"]]
    found = [violation for violation in told if Invariant(violation["invariant"]) is mutation.breaks]
    verdict = f"caught: {len(found)} of {mutation.breaks}, such as: {found[0]['text']}" if found else "NOT CAUGHT"
    print(f"{mutation.name} ({mutation.scenario}): {verdict}", flush=True)
    return bool(found)


def mutate(file: Path, mutation: Mutation) -> None:
    text = file.read_text()
    for before, after in mutation.changes:
        if text.count(before) != 1:
            sys.exit(
                f"{mutation.name}: {mutation.file} has {text.count(before)} times what it should have once: {before}"
            )
        text = text.replace(before, after)
    file.write_text(text)


if __name__ == "__main__":
    sys.exit(main())
