"""Each promise broken once: a change in a copy of Holdfast, and the tests that have to fail for it.

    python tests/mutations.py [--only TEXT]

Prints the test that failed, and fails where a mutation goes unseen. `faults/prove.py` does the same with whole workers.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Mutation:
    """`before` stands once in `file`; `promise` is its number in docs/guarantees.md, 0 for the fast path below all."""

    promise: int
    name: str
    file: str
    before: str
    after: str
    tests: str


HARNESS, RETRY = "tests/unit/test_harness.py", "tests/unit/test_retry.py"
CONFIRMS, SPLITTER = "tests/unit/test_confirms.py", "tests/unit/test_splitter.py"
CLAIMS = "tests/contract/test_claim_contract.py -k memory"
DECIDE = "consumer/decide.py"
SAGAS, MACHINE = "tests/unit/test_saga_machine.py tests/unit/test_harness_sagas.py", "sagas/machine.py"
ORDERING, KEYS, REGISTERED = (
    "tests/unit/test_ordering.py",
    "tests/unit/test_keys.py",
    "tests/unit/test_ordered_registration.py",
)
PARTITIONS = "tests/unit/test_partitions.py"
ON_RABBITMQ = "tests/integration/test_ordering.py"
ATTACHMENTS = "tests/contract/test_attachments.py"
WITHIN_POSTGRES = "tests/contract/test_within.py -k asyncpg-session"
POSITIONS = "tests/contract/test_positions.py -k asyncpg-session"
PROJECTIONS, FEED = "tests/contract/test_projections.py -k sqlite", "tests/integration/test_feeding.py"
PROJECTIONS_POSTGRES = "tests/contract/test_projections.py"
STREAMS, TAPE_FEED = "tests/contract/test_streams.py", "tests/contract/test_feeding_from_stream.py"
RECORDING = "tests/contract/test_recording.py"
WITHIN, RELAY = "tests/contract/test_within.py -k sqlite", "tests/contract/test_relay.py -k sqlite"
FOLLOWING, FOLLOWED = "tests/unit/test_harness_following.py", "tests/unit/test_following.py"
MODEL, CRASHES = "tests/unit/test_following_model.py", "tests/unit/test_following_crashes.py"
BEGUN = "tests/contract/test_following_outbox.py -k sqlite"
COMPLETED = "tests/contract/test_claim_contract.py -k redis"
BOARDS, ON_REDIS = "tests/contract/test_board_contract.py -k memory", "tests/contract/test_board_contract.py -k redis"

MUTATIONS = (
    Mutation(
        1,
        "a returned message counts as confirmed",
        "broker/amqp/confirms.py",
        '"unroutable" if one in self._returned else verdict',
        "verdict",
        CONFIRMS,
    ),
    Mutation(
        1,
        "a copy that was refused is taken for durable",
        "consumer/settle.py",
        "        await sleep(tools.clock, pause)\n",
        "        return\n",
        "tests/integration/test_endings.py tests/integration/test_outages.py tests/integration/test_faults.py",
    ),
    Mutation(
        1,
        "a failed handler's events are sent",
        "consumer/run.py",
        "            failure = None  # its traceback holds this frame\n",
        "            failure = None\n            await self._publish(run)\n",
        f"{HARNESS} tests/integration/test_endings.py",
    ),
    Mutation(2, "one attempt too many", DECIDE, "if attempt >= retry.attempts:", "if attempt > retry.attempts:", RETRY),
    Mutation(
        2,
        "crashes are not counted",
        DECIDE,
        "if crashes >= policy.retry.max_crashes:",
        "if crashes < 0:",
        f"{RETRY} tests/integration/test_idempotency.py",
    ),
    Mutation(
        2,
        "what cannot be read is acked",
        DECIDE,
        "            return o.DeadLetter(reason, error)\n        case o.Failed(error, None)",
        "            return o.HANDLED\n        case o.Failed(error, None)",
        f"{RETRY} {HARNESS}",
    ),
    Mutation(
        2,
        "a handler has no time limit",
        "consumer/run.py",
        "        self._overdue.add(flight)\n",
        "        self._overdue.remove(flight)\n",
        f"{HARNESS} tests/integration/test_endings.py --timeout 30",
    ),
    Mutation(
        3,
        "a retry waits for nothing",
        DECIDE,
        "    return o.Postpone(delay, error)\n",
        "    return o.Postpone(0.0, error)\n",
        RETRY,
    ),
    Mutation(
        3,
        "waiting for another worker spends an attempt",
        DECIDE,
        "free_in + _MARGIN, policy.max_delay), None)",
        "free_in + _MARGIN, policy.max_delay), HeldTooLong('held'))",
        f"{RETRY} {HARNESS} tests/integration/test_holding.py",
    ),
    Mutation(
        4,
        "a completion is not fenced",
        "idempotency/memory.py",
        '            return "fenced"\n',
        "            pass\n",
        CLAIMS,
    ),
    Mutation(
        4,
        "claims of another payload run",
        "idempotency/memory.py",
        "            return Mismatch()\n",
        "            pass\n",
        CLAIMS,
    ),
    Mutation(
        4,
        "an event that completed runs again",
        DECIDE,
        "            return o.DUPLICATE\n",
        "            return o.RUN\n",
        f"{RETRY} {HARNESS} --timeout 30",
    ),
    Mutation(
        4,
        "derived ids forget the position",
        "events/ids.py",
        'f"{event_id}\\x00{handler}\\x00{position}"',
        'f"{event_id}\\x00{handler}"',
        "tests/unit/test_events.py",
    ),
    Mutation(
        5,
        "a queue that hangs takes every slot",
        "consumer/slots.py",
        "return lane.running == 0 or self._lanes > self._concurrency or self._concurrency - self.running > self._idle",
        "return True",
        "tests/unit/test_slots.py",
    ),
    Mutation(
        6,
        "logs have no event id",
        "telemetry/log.py",
        "        self._event_id.set(metadata.event_id)\n",
        "",
        f"{HARNESS} tests/unit/test_log.py",
    ),
    Mutation(
        7,
        "what a stop interrupts is acked",
        DECIDE,
        "            return o.GIVE_BACK\n",
        "            return o.HANDLED\n",
        f"{RETRY} tests/integration/test_closing.py tests/integration/test_processes.py",
    ),
    Mutation(
        7,
        "a stop waits for no handler",
        "consumer/runtime.py",
        "unfinished = await self._finish(grace)",
        "unfinished = await self._finish(0)",
        "tests/integration/test_processes.py",
    ),
    Mutation(
        7,
        "an error in place of a cancellation is taken for any other",
        "telemetry/supervision.py",
        "            heed_cancellation()\n            report(name, error, emit)\n",
        "            if isinstance(error, asyncio.CancelledError):\n                raise\n"
        "            report(name, error, emit)\n",
        "tests/unit/test_stopping.py -k driver",
    ),
    Mutation(
        2,
        "a cancellation that a group of tasks left is taken for one of the handler",
        "consumer/run.py",
        "        if task.cancelling() and flight.cancelled_for is None and not isinstance(failure, CancelledError):\n",
        "        if task.cancelling() and flight.is_abandoned:\n",
        "tests/unit/test_task_groups.py",
    ),
    Mutation(
        8,
        "a projection keeps what a group of tasks left",
        "journal/projector.py",
        "is_idle = not await self._apart()",
        "is_idle = not await self._turn()",
        f"{PROJECTIONS_POSTGRES} -k group",
    ),
    Mutation(
        7,
        "a relay is waited for without end",
        "consumer/transactions.py",
        "await end((*self._companions, *self._relaying, *self._working), patience=patience)",
        "await asyncio.gather(*self._companions, *self._relaying, *self._working, return_exceptions=True)",
        "tests/contract/test_within.py -k does_not_answer",
    ),
    Mutation(
        1,
        "a session that was closed connects again",
        "broker/amqp/link.py",
        "        if self._closed is not None:\n            raise",
        "        if False and self._closed is not None:\n            raise",
        "tests/integration/test_closing.py -k connects_no_more",
    ),
    Mutation(
        0,
        "a multiple confirm ends the first alone",
        "broker/amqp/confirms.py",
        "            if not multiple:\n                return\n",
        "            return\n",
        CONFIRMS,
    ),
    Mutation(
        0,
        "a frame's end is not checked",
        "broker/amqp/splitter.py",
        " or (end < size and data[end] != END)",
        "",
        SPLITTER,
    ),
    Mutation(
        0,
        "an ack covers unfinished tags",
        "broker/amqp/deliveries.py",
        "            if head in fresh:\n                del fresh[head]\n",
        "            if fresh:\n                del fresh[next(iter(fresh))]\n",
        f"{SPLITTER} tests/unit/test_settling.py",
    ),
    Mutation(
        0,
        "a delay is one level short",
        "broker/ladder.py",
        "return max(1, min(round(delay / UNIT), MOST))",
        "return max(1, min(round(delay / UNIT / 2), MOST))",
        "tests/unit/test_ladder.py",
    ),
    Mutation(
        8,
        "an event with an inbox row runs again",
        "consumer/within.py",
        "        if rows:\n",
        "        if rows is not None:\n",
        WITHIN,
    ),
    Mutation(
        8,
        "a handler that committed by itself is taken for done",
        "consumer/within.py",
        "        if not opened.is_open():\n",
        "        if False:\n",
        WITHIN,
    ),
    Mutation(
        8,
        "an event of the outbox is deleted before it is confirmed",
        "outbox/relay.py",
        "                await self._publish(row, envelope)\n",
        "                self._hand.confirmed.append(chain[0][0][0])\n"
        "                await self._publish(row, envelope)\n",
        RELAY,
    ),
    Mutation(
        8,
        "events of one key are sent at once",
        "outbox/hand.py",
        "            lane = lane_of(row)\n",
        "            lane = str(row[1])\n",
        RELAY,
    ),
    Mutation(
        8,
        "a refused event lets the later ones of its key pass",
        "outbox/relay.py",
        "                return self._hand.refuse(lane, error)\n",
        "                self._hand.refused[chain[0][0][0]] = (chain[0][0], error)\n",
        RELAY,
    ),
    Mutation(
        8,
        "a relay notes past its lease",
        "sql/statements.py",
        "where seq in {self.listed('seqs')} and shard in ({self.mine})\"",
        "where seq in {self.listed('seqs')} and :token = :token\"",
        RELAY,
    ),
    Mutation(
        8,
        "a relay takes the leases of others",
        "sql/statements.py",
        '        is_free = f"(lease_until is null or lease_until < {self.now})"\n',
        '        is_free = "(1 = 1)"\n',
        RELAY,
    ),
    Mutation(
        8,
        "the inbox is swept within its window",
        "sql/statements.py",
        "where handled_at < {self.ago('ttl')} limit 1000",
        "where :ttl = :ttl limit 1000",
        RELAY,
    ),
    Mutation(
        8,
        "a savepoint that is rolled back leaves its events",
        "sql/sessions.py",
        "if rolled_back not in published.within]",
        "if rolled_back is not None]",
        "tests/contract/test_outbox.py -k savepoint",
    ),
    Mutation(
        9,
        "a step locks no row",
        "sagas/store.py",
        "where {row} for update of s",
        "where {row}",
        "tests/contract/test_sagas.py -k once_and_not_again",
    ),
    Mutation(
        9,
        "a step is not written with what it did",
        "sagas/store.py",
        '        return (change, f"{self._steps_insert} values ({self._steps_values}) returning 1")\n',
        "        return (change,)\n",
        SAGAS,
    ),
    Mutation(
        9,
        "a limit is not cleared by leaving its stage",
        "sagas/store.py",
        "due_at = case when {entered} then {self._due} else due_at end",
        "due_at = coalesce({self._due}, due_at)",
        SAGAS,
    ),
    Mutation(
        9,
        "a limit of an earlier life counts",
        "sagas/runner.py",
        "(event.life, event.entered) == (self.record.life, self.record.entered)",
        "event.entered == self.record.entered",
        SAGAS,
    ),
    Mutation(
        9,
        "a limit of an earlier stage counts",
        "sagas/runner.py",
        "(event.life, event.entered) == (self.record.life, self.record.entered)",
        "event.life == self.record.life",
        SAGAS,
    ),
    Mutation(
        9,
        "an early event is taken for late",
        MACHINE,
        "    if is_ahead or _will_be_answer(graph, before, event_type):\n",
        "    if False:\n",
        SAGAS,
    ),
    Mutation(
        9,
        "a late event is taken for early",
        MACHINE,
        "    if is_ahead or _will_be_answer(graph, before, event_type):\n",
        "    if True:\n",
        SAGAS,
    ),
    Mutation(
        9,
        "an undo is awaited and not published",
        MACHINE,
        "return replace(here, stage=COMPENSATING, sent=sent, undo=undo, due=first.limit, has_entered=True)",
        "return replace(here, stage=COMPENSATING, sent=sent[:-1], undo=undo, due=first.limit, has_entered=True)",
        SAGAS,
    ),
    Mutation(
        9,
        "what was done is undone from the first step on",
        MACHINE,
        "undo=(*pushed, *before.undo), taken=taken)",
        "undo=(*before.undo, *pushed), taken=taken)",
        SAGAS,
    ),
    Mutation(
        9,
        "a limit is cleared and its event is not in that commit",
        "sagas/sweeper.py",
        "        if rows:\n",
        "        if False:\n",
        SAGAS,
    ),
    Mutation(
        9,
        "each sweep reads the limits that are not over",
        "sagas/upkeep.py",
        "and due_at <= (select {self._now})",
        "and due_at <= {self._now}",
        "tests/contract/test_plans.py -k none_that_wait",
    ),
    Mutation(
        9,
        "an undo that is awaited is forgotten by a restart",
        "sagas/writing.py",
        '"sent": undo.event_id,',
        '"sent": None,',
        SAGAS,
    ),
    Mutation(
        10,
        "a consumer is cancelled before its channel is closed",
        "broker/amqp/attachment.py",
        "                    await while_open(channel, channel.set_qos(self._prefetch, timeout=seconds))\n",
        "                    [await channel.below.basic_cancel(tag) for tag in [*channel.below.consumers]]\n"
        "                    await asyncio.sleep(0.2)\n",
        f"{ATTACHMENTS} -k first_one_held",
    ),
    Mutation(
        10,
        "an event that waits for a claim is rejected",
        "consumer/ordering/turns.py",
        "        return self.tenure.wait(self)\n",
        "        await self.tenure.seat.queue._channel.below.basic_reject(delivery.tag, requeue=True)\n"
        "        self.tenure._leave(self.line, self.item)\n"
        "        self.tenure.pump(self.key)\n"
        "        return True\n",
        f"{ON_RABBITMQ} -k waited_for",
    ),
    Mutation(
        10,
        "a queue is tried out with one message",
        "broker/amqp/link.py",
        "channel.set_qos(prefetch, timeout=RPC)",
        "channel.set_qos(1, timeout=RPC)",
        "tests/contract/test_broker_contract.py -k cut_off_as_it_begins",
    ),
    Mutation(
        10,
        "every other owner has a smaller prefetch",
        "consumer/ordering/ownership.py",
        "        self._queue = await self._attach(queue, PREFETCH, self._from_queue)\n",
        "        Ownership.count = getattr(Ownership, 'count', 0) + 1\n"
        "        prefetch = PREFETCH if Ownership.count % 2 else 4\n"
        "        self._queue = await self._attach(queue, prefetch, self._from_queue)\n",
        f"{ON_RABBITMQ} -k two_owners",
    ),
    Mutation(
        10,
        "the next event runs before the copy of a retry is confirmed",
        "consumer/ordering/tenure.py",
        "        await self._writer.postpone(turn.key, turn.item, flight.incoming, ending, traced)\n",
        "        self.seat.spawn(self._writer.postpone(turn.key, turn.item, flight.incoming, ending, traced))\n",
        ORDERING,
    ),
    Mutation(
        10,
        "a new owner does not wait for its poke",
        "consumer/ordering/ownership.py",
        "        await self._until(self._from_queue.arrived.wait())\n",
        "",
        f"{ON_RABBITMQ} -k old_one_can_remove_nothing",
    ),
    Mutation(
        10,
        "a new owner reads the first entry of the ledger alone",
        "consumer/ordering/ownership.py",
        '        backlog.add(await self._read_up_to(mark(ledger, "sentinel"), backlog.add))\n',
        "        backlog.add(read_entry(*self._from_ledger.came.popleft()))\n",
        f"{ORDERING} -k owner",
    ),
    Mutation(
        10,
        "the ledger is not read",
        "consumer/ordering/ownership.py",
        "owner.begin(backlog, self._from_queue.came)",
        "owner.begin(Backlog(desk), self._from_queue.came)",
        f"{ORDERING} -k owner --timeout 30",
    ),
    Mutation(
        10,
        "an event is removed before its copy is written",
        "consumer/ordering/tenure.py",
        "        await self._writer.park(key, item, self.desk.read(item.body))\n"
        "        self.desk.part.moving -= 1\n"
        "        self._remove(item)\n",
        "        self._remove(item)\n        await self._writer.park(key, item, self.desk.read(item.body))\n",
        f"{ORDERING} -k being_parked",
    ),
    Mutation(
        10,
        "a retry goes behind what was parked",
        "consumer/ordering/writer.py",
        "        if position is None:\n",
        '        if position is None or kind == "parked":\n',
        ORDERING,
    ),
    Mutation(
        10,
        "an event that another worker holds counts as done",
        DECIDE,
        "    if waited <= longest and policy.is_ordered:\n        return o.GIVE_BACK\n",
        "    if waited <= longest and policy.is_ordered:\n        return o.DUPLICATE  # type: ignore[return-value]\n",
        f"{ON_RABBITMQ} -k waited_for",
    ),
    Mutation(
        10,
        "an intake removes an event before it is handed on",
        "consumer/ordering/intake.py",
        "            await publish_copy(desk.tools, desk.queue, incoming.metadata.event_id, copy)\n"
        "            line.leave(item)\n"
        "            self._remove(item)\n",
        "            line.leave(item)\n"
        "            self._remove(item)\n"
        "            await publish_copy(desk.tools, desk.queue, incoming.metadata.event_id, copy)\n",
        f"{PARTITIONS} -k lost_between",
    ),
    Mutation(
        10,
        "an intake hands the next event on before the one before is confirmed",
        "consumer/ordering/intake.py",
        "            await publish_copy(desk.tools, desk.queue, incoming.metadata.event_id, copy)\n",
        "            self._seat.spawn(publish_copy(desk.tools, desk.queue, incoming.metadata.event_id, copy))\n",
        f"{PARTITIONS} -k overtaken",
    ),
    Mutation(
        10,
        "a worker owns all partitions that it is offered",
        "consumer/ordering/share.py",
        "return -(-self._partitions // members)",
        "return self._partitions",
        f"{PARTITIONS} -k divided",
    ),
    Mutation(
        10,
        "keys change their partition with the number of partitions",
        "consumer/ordering/ledger.py",
        "            raise ValueError(partitions)\n",
        "            return self\n",
        f"{PARTITIONS} -k refused",
    ),
    Mutation(
        10,
        "the fence begins at 1 again with partitions",
        "consumer/ordering/ledger.py",
        "return replace(self, base=newest.epoch)",
        "return self",
        f"{PARTITIONS} -k gets_partitions",
    ),
    Mutation(
        10,
        "a stub that is handed on runs",
        "consumer/ordering/keys.py",
        "if self.lane[0].is_stub:",
        "if not self.lane:",
        KEYS,
    ),
    Mutation(
        10,
        "an ordered queue has several active consumers",
        "broker/topology.py",
        '"x-single-active-consumer": True',
        '"x-single-active-consumer": False',
        REGISTERED,
    ),
    Mutation(
        10,
        "an event whose copy is in the ledger is taken again",
        "consumer/ordering/keys.py",
        "if item.event is not None and item.event in self._names:",
        "if item.event is not None and item.event == ():",
        KEYS,
    ),
    Mutation(
        10,
        "older copies stay in the chain",
        "consumer/ordering/keys.py",
        "        elif known is not None and known.revision >= item.revision:\n",
        "        elif known is not None and item.revision < 0:\n",
        KEYS,
    ),
    Mutation(
        10,
        "the next event runs while one is being parked",
        "consumer/ordering/keys.py",
        "elif self.lane and self.parking is None and",
        "elif self.lane and",
        KEYS,
    ),
    Mutation(
        10,
        "a time that comes while its key is being parked is forgotten",
        "consumer/ordering/keys.py",
        "        if self.running is None:\n            if head",
        "        if self.running is None and self.parking is None:\n            if head",
        KEYS,
    ),
    Mutation(
        10,
        "a letter that is replayed while its stub is written is dropped",
        "consumer/ordering/keys.py",
        "            item.revision = 1 + max(other.revision for other in (item, *older, *running))\n",
        "",
        KEYS,
    ),
    Mutation(
        10,
        "an owner has 2,000 entries of its ledger in hand",
        "broker/amqp/attachment.py",
        "prefetch or LARGEST_PREFETCH",
        "prefetch",
        f"{ATTACHMENTS} -k without_a_limit",
    ),
    Mutation(
        10,
        "entries of a ledger are written anew one by one",
        "consumer/ordering/tenure.py",
        "_AT_ONCE = 100",
        "_AT_ONCE = 1",
        f"{ORDERING} -k anew_many",
    ),
    Mutation(
        10,
        "a new owner has all replayed letters in hand",
        "consumer/ordering/ownership.py",
        "if len(letters) > _LETTERS:",
        "if len(letters) < 0:",
        f"{ORDERING} -k letters_were_replayed",
    ),
    Mutation(
        10,
        "a late copy of an earlier owner is taken",
        "consumer/ordering/tenure.py",
        "if entry.epoch != self.seat.epoch:",
        "if entry.epoch > self.seat.epoch:",
        f"{ON_RABBITMQ} -k copy_of_an_earlier",
    ),
    Mutation(
        10,
        "every owner has the same fence",
        "consumer/ordering/ownership.py",
        "backlog.epoch + 1",
        "backlog.epoch",
        f"{ORDERING} -k fence",
    ),
    Mutation(
        8,
        "a delivery is acked before its transaction commits",
        "consumer/within.py",
        "                    await transact(event, context)\n",
        "                    asyncio.ensure_future(transact(event, context))\n",
        f"{WITHIN} --timeout 90",
    ),
    Mutation(
        8,
        "the inbox row has a transaction of its own",
        "consumer/within.py",
        "                async with opener.begin(self._enter(run, event)) as opened:\n",
        "                await self._database.run(self._enter(run, event))\n"
        "                async with opener.begin() as opened:\n",
        f"{WITHIN_POSTGRES} --timeout 90",
    ),
    Mutation(
        8,
        "a handler's events have a transaction of their own",
        "consumer/within.py",
        "                    opened.last = self._publishing(run)\n",
        "                    await self._database.run(self._publishing(run))\n"
        "                    raise ValueError('after they were committed')\n",
        f"{WITHIN_POSTGRES} --timeout 90",
    ),
    Mutation(
        8,
        "what is published as a session flushes is not written",
        "consumer/within.py",
        "                    opened.last = self._publishing(run)\n",
        "                    if run.events:\n                        opened.last = self._publishing(run)\n",
        "tests/contract/test_within.py -k flushes",
    ),
    Mutation(
        8,
        "what is published as a session flushes is not followed",
        "consumer/within.py",
        "                        await opened.flush()\n",
        "",
        "tests/contract/test_within.py -k flushes",
    ),
    Mutation(
        8,
        "a publish is not mandatory",
        "broker/codec.py",
        "(*parts, _MANDATORY)",
        "(*parts, bytes(1))",
        "tests/contract/test_broker_contract.py -k amqp",
    ),
    Mutation(
        8,
        "a relay reads what is above the last number that it read",
        "outbox/relay.py",
        "        hand.noted(noting)\n",
        "        hand.noted(noting)\n"
        "        rows = [row for row in rows if row[0] > self._refusals.get(-1, 0)]\n"
        "        self._refusals[-1] = max([row[0] for row in rows], default=self._refusals.get(-1, 0))\n",
        "tests/contract/test_relay.py -k late_commit",
    ),
    Mutation(
        8,
        "an event that is sent again has another id",
        "outbox/relay.py",
        "        event_id=event_id,\n",
        "        event_id=event_id + str(time.monotonic()),\n",
        RELAY,
    ),
    Mutation(
        8,
        "a relay that nobody wakes does not look",
        "outbox/relay.py",
        "            if is_idle and await self._rest(look):\n",
        "            if is_idle and await self._rest(3600.0):\n",
        f"{RELAY} --timeout 30",
    ),
    Mutation(
        8,
        "events in hand are read again",
        "sql/statements.py",
        " and e.seq not in {self.listed('in_hand')} ",
        " and cast(:in_hand as text) is not null ",
        "tests/contract/test_relay.py -k unconfirmed",
    ),
    Mutation(
        8,
        "events are sent that were read while their key was given up",
        "outbox/hand.py",
        "            if lane in self._given_up:\n",
        "            if lane in ():\n",
        "tests/unit/test_hand.py",
    ),
    Mutation(
        8,
        "a relay holds a key past its lease",
        "sql/statements.py",
        "where seq = {self._seq} and shard in ({self.mine}) on conflict",
        "where seq = {self._seq} and :token = :token on conflict",
        RELAY,
    ),
    Mutation(
        8,
        "leases are judged by the clock of the client",
        "sql/statements.py",
        "            f\"select position from {self.table('cursors')} \"\n"
        "            f\"where token = :token and name like 'shard:%' and lease_until > {self.now}\"\n",
        "            f\"select position from {self.table('cursors')} \"\n"
        "            f\"where token = :token and name like 'shard:%' and lease_until > {__import__('time').time()}\"\n",
        f"{RELAY} --timeout 30",
    ),
    Mutation(
        8,
        "a notification's connection stays in a pool that was replaced",
        "sql/waker.py",
        "            if engine.pool is not pool:  #",
        "            if engine is None:  #",
        "tests/contract/test_waking.py",
    ),
    Mutation(
        8,
        "a position is the number of the writing",
        "sql/kept.py",
        "where name = 'sequencer') + row_number() over (order by seq), seq \"\n            f\"from (select",
        "where name = 'floor') + seq, seq \"\n            f\"from (select",
        POSITIONS,
    ),
    Mutation(
        8,
        "two relays give positions at once",
        "sql/kept.py",
        ' for update skip locked"',
        '"',
        POSITIONS,
    ),
    Mutation(
        8,
        "a transaction that was over is taken for committed",
        "consumer/within.py",
        "        if is_shown or self._spec.enter is not None:\n",
        "        if True:\n",
        "tests/contract/test_within.py -k catches_an_error",
    ),
    Mutation(
        8,
        "a database that falls silent is waited for without end",
        "sql/database.py",
        "await in_time(self._take(steps), within)",
        "await self._take(steps)",
        "tests/integration/test_silent_processes.py -k falls_silent --timeout 20",
    ),
    Mutation(
        8,
        "positions are given in a snapshot from before a commit",
        "sql/steps.py",
        "set transaction isolation level read committed",
        "select 1",
        "tests/integration/test_silent_processes.py -k whatever_the_default",
    ),
    Mutation(
        8,
        "two processes handle a batch of a projection on SQLite",
        "sql/kept.py",
        "update {self.table('cursors')} set position = position where {where} returning position",
        "select position from {self.table('cursors')} where {where}",
        "tests/contract/test_projections.py -k one_batch_on_sqlite",
    ),
    Mutation(
        8,
        "a projection skips what was deleted behind an event that is held",
        "outbox/running.py",
        "    if past:\n",
        "    if not past:\n",
        "tests/contract/test_positions.py -k kept_for_long_enough",
    ),
    Mutation(
        8,
        "a projection keeps nothing of what comes before an error of a connection",
        "journal/projector.py",
        "is_ours=not isinstance(error, _Failed)",
        "is_ours=True",
        "tests/contract/test_projections.py -k whose_function_raises",
    ),
    Mutation(
        8,
        "a projection goes on in a transaction that was rolled back",
        "journal/projector.py",
        "    if not opened.is_open():\n",
        "    if False:\n",
        "tests/contract/test_projections.py -k rolls_back",
    ),
    Mutation(
        8,
        "a relay that cannot count does not send",
        "outbox/relay.py",
        "            self._count_due = time.monotonic() + _COUNT_EVERY  #",
        "            pass  #",
        "tests/contract/test_positions.py -k cannot_be_counted",
    ),
    Mutation(
        5,
        "an event that runs alone keeps others from running until its copy is confirmed",
        "consumer/pipeline.py",
        "        if flight.slot.is_alone and not isinstance(ending, Ack):\n",
        "        if False:\n",
        "tests/unit/test_stopping.py -k others_run_while_the_dead_letter --timeout 90",
    ),
    Mutation(
        7,
        "marks of workers that did not become the owner stay in the ledger",
        "consumer/ordering/ownership.py",
        "                if entry.is_of_no_owner and",
        "                if False and",
        "tests/unit/test_ordering.py -k however_many_marks --timeout 90",
    ),
    Mutation(
        1,
        "an operation on dead letters takes one that is alike to those it has done",
        "dead_letters/operations.py",
        '"UPDATE items SET removed = 2 WHERE operation = ? AND removed = 1"',
        '"UPDATE items SET removed = 1 WHERE operation = ? AND removed = 1"',
        "tests/integration/test_dead_alike.py",
    ),
    Mutation(
        5,
        "a Redis that was demoted is asked on the connections there are",
        "idempotency/redis/store.py",
        "                if self._batches.is_refused:\n",
        "                if False:\n",
        "tests/integration/test_redis.py -k leads_to_another_server --timeout 90",
    ),
    Mutation(
        8,
        "a rehearsal sends what waits in the database",
        "cli/dead/rehearsal.py",
        "Dependencies(rehearses=True)",
        "Dependencies()",
        "tests/integration/test_rehearsals.py -k rolled_back",
    ),
    Mutation(
        8,
        "a rehearsal commits what the handler did",
        "consumer/within.py",
        "            raise _RolledBack\n",
        "            return\n",
        "tests/contract/test_within.py -k rehearsal",
    ),
    Mutation(
        8,
        "a process that is frozen within a transaction keeps what it has locked",
        "sql/steps.py",
        "set_config('idle_in_transaction_session_timeout', cast(:limit as text), true)",
        "set_config('application_name', cast(:limit as text), true)",
        "tests/integration/test_silent_processes.py -k silent",
    ),
    Mutation(
        8,
        "a process that takes in nothing keeps what it has locked",
        "sql/steps.py",
        "set_config('tcp_user_timeout', cast(:limit as text), true)",
        "set_config('application_name', cast(:limit as text), true)",
        "tests/integration/test_silent_processes.py -k takes_in_nothing",
    ),
    Mutation(
        8,
        "the search for positions rises past transactions that write",
        "outbox/sequencer.py",
        "        if before is not None and before & now:\n            return None\n",
        "",
        POSITIONS,
    ),
    Mutation(
        8,
        "two writers make one version of an aggregate",
        "sql/schema.py",
        '"key", "stream", "stream_version"),\n        unique=True,',
        '"key", "stream", "stream_version"),',
        "tests/contract/test_aggregates.py -k asyncpg-session",
    ),
    Mutation(
        8,
        "a snapshot of another shape is read",
        "journal/journal.py",
        "    if shape != aggregate.__shape__:\n",
        "    if shape is None:\n",
        "tests/contract/test_aggregates.py -k sqlite",
    ),
    Mutation(
        8,
        "a projection reads the event at its position again",
        "sql/history.py",
        "p.position > {self._whole('after')}",
        "p.position >= {self._whole('after')}",
        PROJECTIONS,
    ),
    Mutation(
        8,
        "a page without events does not move a projection",
        "journal/projector.py",
        "max(last, page[-1][0] if page else 0) if is_last else page[-1][0]",
        "page[-1][0] if page else max(after, 0)",
        PROJECTIONS,
    ),
    Mutation(
        8,
        "a projection skips an event that fails",
        "journal/projector.py",
        "                        raise _Failed(call.index, call.row) from error\n"
        "            opened.last = self._move(batch)\n        return batch\n\n    def _calls",
        "                        del error\n"
        "            opened.last = self._move(batch)\n        return batch\n\n    def _calls",
        PROJECTIONS,
    ),
    Mutation(
        8,
        "a feed reads where the past ends before it binds the queue",
        "journal/feed.py",
        "        await self._broker.declare(topology_of([self._spec], broker), broker.topology)\n"
        "        after, end = await self._database.run(self._begin())\n",
        "        after, end = await self._database.run(self._begin())\n"
        "        await self._broker.declare(topology_of([self._spec], broker), broker.topology)\n",
        FEED,
    ),
    Mutation(
        8,
        "a feed goes to all listeners",
        "journal/feed.py",
        'to_message(envelope, exchange="", routing_key=self._spec.queue)',
        "to_message(envelope, exchange=self._settings.broker.exchange)",
        FEED,
    ),
    Mutation(
        8,
        "a feed publishes all events of a key at once",
        "journal/feed.py",
        "    if spec.ordered is not None:\n",
        "    if spec.ordered is None:\n",
        f"{FEED} -k in_order",
    ),
    Mutation(
        8,
        "a projection's position is committed apart from its rows",
        "journal/projector.py",
        "            opened.last = self._move(batch)\n        return batch\n\n    def _in_thread",
        "        async with opener.begin(self._move(batch)):\n            return batch\n\n    def _in_thread",
        f"{PROJECTIONS_POSTGRES} -k killed_at_each_arrow",
    ),
    Mutation(
        8,
        "a feed reads how far a relay has sent",
        "journal/feed.py",
        "        return int((yield self._history.bounds, {})[0][0])\n",
        "        last = int((yield self._history.bounds, {})[0][0])\n"
        "        [(first,)] = yield f'select min(position) from {self._history.waiting}', {}\n"
        "        return last if first is None else first - 1\n",
        f"{FEED} -k not_noted",
    ),
    Mutation(
        8,
        "a feed from a stream marks its end before it binds the queue",
        "journal/tape_feed.py",
        "        await self._broker.declare(topology_of([self._spec], broker), broker.topology)\n"
        "        await sleep(self._clock, _SETTLED)\n"
        "        return await self._read(since, self._publish, progress)\n",
        "        feeding = asyncio.ensure_future(self._read(since, self._publish, progress))\n"
        "        await asyncio.sleep(0)\n"
        "        await self._broker.declare(topology_of([self._spec], broker), broker.topology)\n"
        "        return await feeding\n",
        f"{TAPE_FEED} -k around_the_binding",
    ),
    Mutation(
        8,
        "a stream is read without acks",
        "broker/tape.py",
        "            self._attachment.remove(tag)  # makes room for another\n",
        "",
        f"{STREAMS} -k more_messages",
    ),
    Mutation(
        8,
        "delayed events do not come to the stream",
        "broker/tape.py",
        'ladder.delayed("#")',
        '"none"',
        f"{STREAMS} -k delayed_ones",
    ),
    Mutation(
        8,
        "a recorder begins with the next message",
        "journal/recorder.py",
        '"first" if self._offset < 0 else self._offset)',
        '"next" if self._offset < 0 else self._offset)',
        f"{RECORDING} --timeout 60",
    ),
    Mutation(
        8,
        "the offset of a stream is committed before its events",
        "journal/recorder.py",
        "        written = yield from write_past(self._history, events)\n"
        "        yield from self._move(last.offset, _id_of(last.message))\n",
        "        yield from self._move(last.offset, _id_of(last.message))\n"
        "        yield 'commit', {}\n        yield 'begin', {}\n"
        "        written = yield from write_past(self._history, events)\n",
        f"{RECORDING}::test_a_recorder_that_dies_at_each_arrow_writes_each_event_once[sqlite]",
    ),
    Mutation(
        8,
        "a stream that was made anew is taken for the one before",
        "journal/recorder.py",
        "_id_of(first.message) != event_id",
        "event_id is False",
        f"{RECORDING} -k made_anew",
    ),
    Mutation(
        8,
        "what a stream has lost is not said",
        "journal/recorder.py",
        "            if one.offset > self._offset + 1 and self._offset >= 0:\n",
        "            if one.offset < 0:\n",
        f"{RECORDING} -k deleted_before",
    ),
    Mutation(
        11,
        "an event is handled on its board before what it publishes is open",
        "consumer/following.py",
        "        is_open = await boards.open(request, events, self._entry(run.incoming.metadata))\n",
        '        await boards.mark(request, self._entry(run.incoming.metadata, "handled"))\n'
        "        is_open = await boards.open(request, events, self._entry(run.incoming.metadata))\n",
        CRASHES,
    ),
    Mutation(
        11,
        "an event is put on its board when it is handled, and not before",
        "consumer/following.py",
        "        is_open = await boards.open(request, events, self._entry(run.incoming.metadata))\n",
        "        is_open = await boards.open(request, (), self._entry(run.incoming.metadata))\n",
        FOLLOWING,
    ),
    Mutation(
        11,
        "what a dead letter had opened counts as handled",
        "idempotency/board.py",
        "                del board[n]\n",
        '                board[n] = "handled" + board[n].removeprefix("open")\n',
        MODEL,
    ),
    Mutation(
        11,
        "what a dead letter had opened stays open",
        "idempotency/board.py",
        "                del board[n]\n",
        "                pass\n",
        BOARDS,
    ),
    Mutation(
        11,
        "listeners that are bound by a pattern are left out",
        "idempotency/boards.py",
        "matches(pattern, event_type)",
        "pattern == event_type",
        FOLLOWING,
    ),
    Mutation(
        11,
        "a dead letter counts as handled",
        "consumer/following.py",
        '            return "failed"\n',
        '            return "handled"\n',
        FOLLOWING,
    ),
    Mutation(
        11,
        "an event that is opened again is no longer handled",
        "idempotency/board.py",
        "board.setdefault(entry.field, entry.state + entry.rest)",
        "board[entry.field] = entry.state + entry.rest",
        BOARDS,
    ),
    Mutation(
        11,
        "an event that is opened again in Redis is no longer handled",
        "idempotency/redis/board.py",
        "redis.pcall('HSETNX', key, list[n], list[n + 1])",
        "redis.pcall('HSET', key, list[n], list[n + 1])",
        ON_REDIS,
    ),
    Mutation(
        11,
        "a late step in Redis undoes that an event is handled",
        "idempotency/redis/lua.py",
        "  if old == 'handled' then return 0 end\n",
        "",
        ON_REDIS,
    ),
    Mutation(
        11,
        "an event counts as handled though what it published is on no board",
        "idempotency/board.py",
        'return "handled" if old == "published" else "lost"',
        'return "handled"',
        MODEL,
    ),
    Mutation(
        11,
        "an event counts as handled in Redis though what it published is on no board",
        "idempotency/redis/lua.py",
        "state = old == 'published' and 'handled' or 'lost'",
        "state = 'handled'",
        ON_REDIS,
    ),
    Mutation(
        11,
        "a relay puts the first event on its board once it has sent it",
        "outbox/relay.py",
        """                envelope = await self._begun(row)
                if self._is_stopping or time.monotonic() > self.leases.send_until:
                    return self._hand.give_up(lane)
                await self._publish(row, envelope)
""",
        """                if self._is_stopping or time.monotonic() > self.leases.send_until:
                    return self._hand.give_up(lane)
                await self._publish(row, _envelope(row))
                await self._begun(row)
""",
        BEGUN,
    ),
    Mutation(
        11,
        "a relay makes a board for an event that a handler wrote",
        "outbox/relay.py",
        "headers.FOLLOW in envelope.headers and envelope.metadata.caused_by is None",
        "headers.FOLLOW in envelope.headers",
        BEGUN,
    ),
    Mutation(
        11,
        "a message that comes again after it was postponed counts as a duplicate",
        "consumer/following.py",
        '        case Ack() if ran.runs or flight.claimed.result == "duplicate":\n',
        "        case Ack():\n",
        FOLLOWING,
    ),
    Mutation(
        11,
        "an event that another worker took over counts as handled",
        "consumer/following.py",
        'elif completion != "fenced" and not is_with_claim:',
        "elif not is_with_claim:",
        FOLLOWED,
    ),
    Mutation(
        11,
        "an event whose completion is recorded later is not marked",
        "consumer/following.py",
        "            boards.mark_later(request, entry)\n",
        "            pass\n",
        FOLLOWED,
    ),
    Mutation(
        11,
        "a completion in Redis that is refused marks its event as handled",
        "idempotency/redis/lua.py",
        "  if completed ~= 1 and completed ~= 2 then return completed end\n",
        "",
        COMPLETED,
    ),
    Mutation(
        11,
        "a transaction that published nothing is on no board before its commit",
        "consumer/within.py",
        "        await self._follower.open(run, [(envelope",
        "        if run.events: await self._follower.open(run, [(envelope",
        CRASHES,
    ),
    Mutation(
        11,
        "an event that published nothing counts as handled though its mark may be lost",
        "consumer/following.py",
        "self.opens_always = boards is not None and not boards.is_beside_claims",
        "self.opens_always = False",
        CRASHES,
    ),
    Mutation(
        11,
        "a retry is noted after it was published",
        "consumer/following.py",
        """            await boards.mark(request, self._entry(metadata, "retrying", attempt, at), delay=ending.delay)
""",
        """            completion = await settler.make_durable(flight, ending)
            await boards.mark(request, self._entry(metadata, "retrying", attempt, at), delay=ending.delay)
            return completion
""",
        FOLLOWED,
    ),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="mutations whose name matches this regular expression")
    wanted = parser.parse_args().only
    chosen = [mutation for mutation in MUTATIONS if re.search(wanted, mutation.name)]
    unseen = [mutation.name for mutation in chosen if not is_seen(mutation)]
    print(f"{len(chosen) - len(unseen)} of {len(chosen)} mutations made a test fail")
    return 1 if unseen else 0


def is_seen(mutation: Mutation) -> bool:
    """Return whether a test fails for the mutation."""
    with tempfile.TemporaryDirectory(prefix="holdfast-mutant-") as folder:
        package = Path(folder) / "holdfast"
        copy_package(package)
        file = package / mutation.file
        file.write_text(file.read_text().replace(mutation.before, mutation.after))
        ended = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *mutation.tests.split()],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
    failed = [line for line in ended.stdout.splitlines() if line.startswith("FAILED")]
    is_red = ended.returncode == 1 and bool(failed)
    print(
        f"{'red' if is_red else 'GREEN'}: promise {mutation.promise}, {mutation.name}: {(failed or ['-'])[0]}",
        flush=True,
    )
    return is_red


def copy_package(package: Path) -> None:
    """Copy the package, which is the root of the repository, to a folder of its name."""
    package.mkdir()
    for folder in (file.parent for file in ROOT.glob("*/__init__.py")):
        shutil.copytree(folder, package / folder.name, ignore=shutil.ignore_patterns("__pycache__"))
    for file in (*ROOT.glob("*.py"), ROOT / "py.typed"):
        shutil.copy(file, package)


if __name__ == "__main__":
    sys.exit(main())
