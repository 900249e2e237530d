"""Writes docs/reliability.md from what runs wrote: `python tests/faults/report.py .faults/results.jsonl ...`."""

import json
import re
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from invariants import Invariant

Run = dict[str, Any]
PAGE = Path(__file__).parent.parent.parent / "docs" / "reliability.md"

HEAD = """# What was broken, and what became of every event

For those who want evidence: which faults were tried, how often, and what became of every event. The fault suite runs
workers in processes of their own. It breaks them, their broker, their Redis and the network between them while events
are published, then heals everything and accounts for every event. It does so from records that no fault can touch:
the publisher's results, a line in a file for each effect of a handler, the faults with their times, and the dead-
letter queues. The checker is itself proven: `make prove` puts seven faults that lose or repeat messages, or lose
their order, into a copy of Holdfast, and each has to be caught.

*Lost*: confirmed to the publisher, and neither handled nor a dead letter. *Repeats*: effects that came again, each
accounted for by a fault that says why (a process killed between its effect and its completion; claims or leases lost);
one that no fault explains is a violation. *Recovery*: from the last fault healed to the last event of before handled,
the longest of all runs. No failures in n runs bound the rate of failures by about 3/n: n is small in most rows.

This page is written by `tests/faults/report.py` from the result files of runs. To run again:

- `make faults`: every scenario once. `make faults SEED=7 ONLY="redis is killed"` repeats one with the same draws.
- `make faults BROKERS=3.10,4.0,4.3`: on each release. `make faults CLUSTER=1`: clusters of three, as root.
- `make soak RUNS=20`: every scenario 20 times. `make soak MINUTES=30`: faults at random, in combination.
- `make prove`: the seven mutations. `make fuzz MINUTES=5`: the fuzzing.

All runs were made on a machine with two cores, several side by side, so on a busy one. The matrix was run seven times
on each of three releases in the state `f8f78df`, without a violation. What reading the code found after that (below) is
in `0d083a5`, the state of the soaks and of the clusters; the four scenarios that were new (hostile messages, other
arguments, a clock that jumps, a Redis that fails over) were run in that state and in `95fb9a8`, the last of them in the
latter alone. Every scenario but those of clusters was run once more since, by `make test`.
"""

ORDER = """## Order per key

One handler of the suite is ordered. In every scenario a seventh of the events is for it, and seven scenarios take its
queue from its owner on purpose. Of each key the account checks that its first effects are in order (I6), that nothing
passes a dead letter that holds it (I6), that no two attempts overlap (I11), that the fence of an owner is higher than
those before (I12), and that the ledger holds the marks of its owners alone when all rests (I13). Excused are a process
that was frozen or lost its leases, which may run an event next to its successor; and an owner that is cut off and
cannot know it yet, which may begin with a lower fence.

This is newer than the tables above, and was run little so far, on RabbitMQ 3.10.8 alone: 18 runs, 8,448 events,
50 faults, 0 lost, 17 repeats. `make faults` runs the seven scenarios, and those of clusters, with four partitions too.

`make soak-order` has three processes killed, stopped, frozen and cut off, and the broker restarted, at random. On
3.10.8, with the same excused, a line being the begin or the end of an attempt:

| soak | faults | lines | owners | out of order | two at a time | fence sank | entries left |
|---|--:|--:|--:|--:|--:|--:|--:|
| one partition, seed 996882 | 60 | 16,730 | 21 | 0 | 0 | 0 | 0 |
| four partitions, seed 449026 | 60 | 15,723 | 24 at most | 0 | 0 | 0 | 0 |

The scenarios, with one partition:

| scenario | runs | events | faults | lost | repeats | recovery, s | violations |
|---|--:|--:|--:|--:|--:|--:|--:|
| owners of an ordered queue are killed | 1 | 450 | 3 | 0 | 0 | 0.0 | 0 |
| the owner of an ordered queue is cut off | 1 | 450 | 9 | 0 | 0 | 2.9 | 0 |
| the network swallows what the owner of an ordered queue says | 1 | 450 | 2 | 0 | 0 | 1.7 | 0 |
| a rolling deploy replaces every worker twice | 1 | 600 | 4 | 0 | 0 | 0.0 | 0 |
| workers of an ordered queue come and go | 1 | 600 | 1 | 0 | 0 | 0.0 | 0 |
| dead letters hold their keys until they are replayed | 1 | 474 | 2 | 0 | 2 (worker killed) | 0.0 | 0 |
| the owner of an ordered queue is frozen past its lease | 1 | 450 | 2 | 0 | 4 (worker frozen) | 1.6 | 0 |
| the broker is restarted | 1 | 300 | 1 | 0 | 0 | 3.8 | 0 |
| redis forgets everything | 1 | 300 | 1 | 0 | 3 (Redis flushed) | 0.9 | 0 |
| a node of the cluster is parted from the others | 1 | 450 | 1 | 0 | 0 | 31.1 | 0 |

With four partitions:

| scenario | runs | events | faults | lost | repeats | recovery, s | violations |
|---|--:|--:|--:|--:|--:|--:|--:|
| owners of an ordered queue are killed | 1 | 450 | 3 | 0 | 4 (worker killed) | 3.1 | 0 |
| the owner of an ordered queue is frozen past its lease | 1 | 450 | 2 | 0 | 3 (worker frozen) | 1.5 | 0 |
| the owner of an ordered queue is cut off | 1 | 450 | 9 | 0 | 0 | 9.9 | 0 |
| the network swallows what the owner of an ordered queue says | 1 | 450 | 2 | 0 | 0 | 5.5 | 0 |
| a rolling deploy replaces every worker twice | 1 | 600 | 4 | 0 | 0 | 0.0 | 0 |
| workers of an ordered queue come and go | 1 | 600 | 1 | 0 | 0 | 0.9 | 0 |
| dead letters hold their keys until they are replayed | 1 | 474 | 2 | 0 | 1 (worker killed) | 0.8 | 0 |
| a node of the cluster is parted from the others | 1 | 450 | 1 | 0 | 0 | 28.4 | 0 |

One run more (*the owner of an ordered queue is frozen past its lease*, seed 2441571122, not in the table) reported two
attempts at a time. It was the checker: it excused the attempt of a frozen process that was there first, and not one
that the process began as it woke, with a claim it had been given before it was frozen.

A copy of Holdfast whose new owners do not read the ledger was caught by *owners of an ordered queue are killed*: 85
events were lost. Each mechanism of an owner is broken once more in `make mutations`.

"""

FOUND = """## What was found

In Holdfast, mended, each with a test that failed before:

- A connection lost while the worker declared its queues again was noticed after 30 s only: the client library lets
  whoever waits for an answer on such a channel wait for all of his time-out. Meanwhile no retry and no dead letter
  could be written (they were held, nothing was lost). Found by *connections are cut at random moments*.
- A redelivery that came while its first delivery was just being settled was never settled itself: it stayed with its
  worker until that ended. Found by *several things break at once*.
- Acks made just before a channel was closed were lost with it, so that their events came again, as duplicates. Found
  by stopping workers under load.
- By fuzzing: a message whose timestamp or texts could not be written again was held for ever in place of being
  dead-lettered; a header table of many small values took half a second; a time with microseconds in its offset was
  lost in a copy; an event with a long id of many bytes could cause no other; a field for anything took `NaN`; a death
  without routing keys, a receipt with half a surrogate pair, an ack cut short and a body without a header were
  trusted; a URL with a slash in its password was quoted in an error; deep JSON or an overlong file name in a setting
  ended in a traceback. Each is a case of `tests/fuzz/test_findings.py`.
- A quorum queue that has just lost its leader refuses the first message of a channel. What a handler published then
  failed it at once, so that it ran again, and up to its last attempt within a second; it is tried again for
  `HOLDFAST_BROKER__PUBLISH_TIMEOUT` seconds now. Found by *a node of the cluster is killed*, on 3.10.8 (seed 393255603:
  83 repeats).
- By writing the threat model down: a source and an id with `NUL` in them could pass for the key of another event, and
  suppress it.
- A worker that stopped consuming in the moment when its connection broke, as when Redis went away together with it,
  waited up to 10 s for an answer that could no longer come, and did not consume meanwhile: up to Python 3.11
  `asyncio.wait_for` can swallow a cancellation. Found by *several things break at once* (4.3.6, seed 2582045474).
- When Redis loses all its keys, the heartbeats go with them. What is claimed then, before the next heartbeat (a third
  of a lease), may be taken over as a dead owner's: an event took effect in two processes a quarter of a second after
  the flush. A completion that finds its claim gone now has the heartbeat restored at once; what is left of the gap is
  told in `docs/idempotency.md`. Found by *redis forgets everything* (4.0.5, seed 1950933221).

- By reading the code in order to break it, each shown by a test first (tests/integration/test_frames.py,
  test_closing.py, test_outages.py, test_redis.py, test_supervision.py; tests/unit/test_stopping.py, test_scheduler.py,
  test_copies.py, test_events.py, test_retry.py, test_settling.py). No way was found to lose a message; these were:
  - Where RabbitMQ is set to a `frame_max` above 131,072 bytes, a queue stopped for good at a larger body; below, one
    long header took the publishing connection down, again and again.
  - An ack or a publish written in the moment the broker closed its channel ended the whole connection; so did a channel
    that took more than 2 s to close.
  - A broker that reads no more (an alarm) kept a stopping process from ending until it read again.
  - Each outage of Redis left a channel and two tasks behind for each queue.
  - With a Redis Cluster of which no node answered, the thread of the lease ended: the worker stayed paused for good.
  - A stop in the moment in which an event waited to run alone could leave claims held, so that innocent events were
    suspected of a crash; one just after a dead letter was confirmed gave the event back as well.
  - Validators that raise neither `ValueError` nor `AssertionError`, exceptions that compare themselves oddly, groups
    nested a thousand deep and long forged `holdfast-exchange` headers: their events went round, in place of being
    dead-lettered. An error text of 10 MB held up the loop for seconds.
  - Two processes that died together could end their supervisor; one that had forked kept it busy for good.
  - Within one round trip, a release could overtake the claim it ends. Out of memory, Redis refused the heartbeats too,
    so that claims of running handlers were free after a lease. A Redis that kept coming and going made a worker pause
    and resume without end.
  - How long an event had waited for another worker was told by two machines' clocks: where these differed by more than
    a minute, an attempt was spent for it.
  - A queue that another connection has for itself kept the publishing connection from coming back.
- A failover of Redis that lost the end of a claim left it to a worker that lived: the event waited for it until that
  counted as a failure, and was a dead letter in the end, its handler not run again. The worker remembers how its claims
  ended, and ends such a one again. Found by *redis fails over* (3.10.8, seed 3487690415).

In RabbitMQ, and not ours to mend:

- What leaves its delay and finds its way gone, because the level below was deleted or its broker dies just then, is
  kept and tried again every 3 minutes, if it is 3 minutes old by then
  (`dead_letter_worker_publisher_confirm_timeout`). It is late, not lost: with a level deleted, one came 180.8 s after
  it was published (3.10.8). After *a node of the cluster is killed* on 3.10.8, 7 messages were seen to wait in a
  level's dead-letter worker; all 300 events of that run and of the next (seeds 985187645 and 1709649020) were
  accounted for after 353 s and 344 s; such runs are given 400 s. After *the broker is killed* on 4.0.5 one
  event came 179.8 s after the broker was back (seed 2840935381, in the table): what took the time was not looked into,
  and it fits. Of the runs of *the lower delay levels are deleted* in the table five took 190 s. Earlier runs were
  closed before that, after one minute or four, and told of what was still waiting as lost: 10 events of a cluster, one
  of *the lower delay levels are deleted*, 12 of a cluster (seed 2863252055), and the copy of a retry that was confirmed
  into its delay 0.1 s before *the broker is killed* (4.0.5, seed 2809173411). `docs/operations.md` says how to have
  RabbitMQ try sooner.
- On an overloaded machine a cluster of 3.10.8 that had been parted did not come together again: it refused to declare
  queues (*cluster_not_formed*), and four runs of clusters were broken off for it; they are not in the table.
- Killed within 3 s of a queue's declaration, RabbitMQ may not have its name on disk: it brings the queue back without
  a leader, for good (*18 registered servers*, and *recovering 19 queues*, in its log). What is published to it waits,
  and nothing is acked meanwhile. On a busy machine 6 runs of *the broker is killed* (3 each on 3.10.8 and 4.0.5) were
  broken off by it; they are not in the table. A run waits now until its queues are on disk.

Earlier states of Holdfast were taken through as much; what those runs found is told here, and their figures are not in
the tables. The last full account before this one was of 797 runs, 481,968 events and 2,268 faults, with one event that
was not seen to its end (the copy of a retry that is told of above).

Open: in one run of *a worker is killed after confirm* (3.10.8, seed 2474933136, not in the table) every event was
accounted for, and one message more was in the queue when the workers had gone. The run did not note which. What is
left is told by its event since, and a run ends only when two looks along the way that messages take found nothing; it
has not come again.

In the suite itself: two runs of *a node of the cluster is parted from the others* (4.3.6, seeds 1801484062 and
1592952895) told of an effect that came again without a fault. For 15 s a queue had no leader, and refused then what a
handler had published, so that it failed and was retried: such a partition explains what ran meanwhile, and the two
were accounted again with that. (What is refused is tried again from the first refusal on now; before, the 15 s
counted.) Two of 20 runs of *a node of the cluster is killed* on 4.3.6 (seeds 3544385960 and 10166528) were closed while
a worker still held a retry that it could not publish: a run is at rest only when no worker has a delivery under way
now, and the 20 were made again. One soak of 30 minutes was broken off after 26, when a worker had not begun to consume
within a minute on a machine with a load of 16; it is given longer now, and says why.

In the suite itself, mended before, with a test of the checker each. The checker told of violations that were none: it
had taken for a forgotten claim one that its process owed to a Redis that was gone when the process was killed, and one
of a process that was killed while its handler ran; it had missed that a process frozen just before a handler's first
line writes that line when it goes on; it had taken the claim of an event's other message for one that outlived its own
retry, and a message of an earlier run, late by the broker's timer, for one that nobody had sent. Before, a delayed
event that comes due while its queue is deleted was not looked for where it is (`holdfast.unrouted`), and a handler that
ignores its cancellation took effect after its time-out and again in its retry. It had allowed two copies of a retry
where a fault that meets its publishing may leave three (seeds 3271923047 and 1253239341). And it had counted as done
for good what a process had done while Redis was gone, and had still to record when it was killed; while the Redis of
the suite, which it took for one that loses nothing when it is killed, wrote down what it had answered up to 2 s later
where the disk was busy (`appendfsync` is `always` in the suite now): a soak on 4.0.5 (seed 2485071659) told of 6
repeats and 8 claims for these two, and was run again, as were two others that were broken off.
"""


def page(runs: list[Run], proofs: list[str], fuzzed: list[str]) -> str:
    """The page about these runs, and what `make prove` and `make fuzz` said."""
    by_scenario: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        by_scenario[run["scenario"]].append(run)
    table = [
        "| scenario | runs | events | faults | lost | repeats | recovery, s | violations |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    table += [_row(name, of) for name, of in by_scenario.items()]
    parts = ["## Runs", "", *_totals(runs), "", *table, "", *_violations(runs), *_growth(runs)]
    parts += _said("The mutations, and what the checker said", proofs) + _said("Fuzzing, by target", fuzzed)
    return "\n".join([HEAD, *parts, ORDER + FOUND])


def _totals(runs: list[Run]) -> list[str]:
    """The sums of each broker, and of all."""
    brokers = sorted({run["broker"] for run in runs})
    lines = ["| RabbitMQ | runs | events | faults | lost | repeats |", "|---|--:|--:|--:|--:|--:|"]
    for name in [*brokers, "all"]:
        of = [run for run in runs if name in ("all", run["broker"])]
        faults, repeats = (sum(sum(run[what].values()) for run in of) for what in ("faults", "repeats"))
        lost = sum(run["lost"] for run in of)
        lines.append(f"| {name} | {len(of)} | {sum(run['events'] for run in of):,} | {faults:,} | {lost} | {repeats} |")
    return lines


def _said(title: str, lines: list[str]) -> list[str]:
    return [f"## {title}", "", *(f"- {line}" for line in lines), ""] if lines else []


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
        kinds = Counter(Invariant(violation["invariant"]) for violation in run["violations"])
        told = ", ".join(f"{count} of {kind}" for kind, count in kinds.items())
        first = run["violations"][0]["text"].split(" in f")[0]
        lines.append(f"- {run['scenario']}, RabbitMQ {run['broker']}, seed {run['seed']}: {told}; the first: {first}")
    return [*lines, ""]


def _growth(runs: list[Run]) -> list[str]:
    weighed = [run for run in runs if run["growth"] and run["scenario"] == "random soak"]
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


def spelled_out(proof: str) -> str:
    """A line of `make prove`, which named invariants by their codes once."""
    return re.sub(r"\bof (I\d+),", lambda code: f"of {Invariant(code[1])},", proof)


if __name__ == "__main__":
    lines = [line for name in sys.argv[1:] for line in Path(name).read_text().splitlines()]
    PAGE.write_text(
        page(
            [json.loads(line) for line in lines if line.startswith("{")],
            [spelled_out(line) for line in lines if "caught: " in line or "NOT CAUGHT" in line],
            [line for line in lines if " minutes, at most " in line],
        )
    )
