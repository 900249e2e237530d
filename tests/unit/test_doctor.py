"""What the doctor makes of what it sees, and that its page and its catalogue tell the same."""

import ast
import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, get_args

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from holdfast import Context, Event, Retry, Settings, Worker, load_settings
from holdfast.broker import (
    Binding,
    Comparison,
    Depth,
    Difference,
    Management,
    Queue,
    Topology,
    binding_differences,
    events_topology,
    ladder,
    registry,
)
from holdfast.cli.doctor.catalogue import CATALOGUE
from holdfast.cli.doctor.databases import of_outbox, of_pool, of_postgres
from holdfast.cli.doctor.judging import (
    of_arguments,
    of_clock,
    of_difference,
    of_handlers,
    of_queues,
    of_settings,
    of_version,
)
from holdfast.cli.doctor.ordering import of_keys, of_unowned
from holdfast.config import BrokerSettings
from holdfast.idempotency import Danger
from holdfast.sql import Database

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 1, 31, tzinfo=UTC)


class Paid(Event, type="paid"):
    order: str


def settings(**groups: Any) -> Settings:
    return load_settings(_env_file=None, **groups)


@pytest.mark.parametrize(
    ("product", "version", "codes"),
    [("RabbitMQ", "3.9.29", ["broker-old"]), ("RabbitMQ", "3.10.0", []), ("RabbitMQ", "4.3.6", []), ("other", "1", [])],
)
def test_a_broker_without_what_the_delay_ladder_needs_is_found(product: str, version: str, codes: list[str]) -> None:
    assert [finding.code for finding in of_version(Comparison(product, version))] == codes


@pytest.mark.parametrize(
    ("kind", "thing", "code"),
    [
        ("missing", "queue w.handle", "topology-missing"),
        ("missing", "exchange events", "topology-missing"),
        ("missing", "queue w.handle.dead", "dead-letters-missing"),
        ("missing", "queue holdfast.delays.03", "delay-missing"),
        ("differs", "queue w.handle", "topology-differs"),
        ("unbound", "binding", "binding-missing"),
        ("surplus", "binding", "binding-surplus"),
        ("unread", "queue w.handle", "arguments-unread"),
    ],
)
def test_a_difference_is_found_by_what_it_hurts(kind: Any, thing: str, code: str) -> None:
    assert of_difference(Difference(kind, thing, "told")).code == code


@pytest.mark.parametrize(
    ("policy", "codes"),
    [
        ({"delivery-limit": 5}, ["delivery-limit-low"]),
        ({"delivery-limit": 100}, []),
        ({"delivery-limit": -1}, []),
        ({"message-ttl": 1000}, ["policy-drops"]),
        ({"max-length": 10, "delivery-limit": 20}, ["delivery-limit-low", "policy-drops"]),
        ({"ha-mode": "all"}, []),
        (None, []),
    ],
)
def test_policies_that_race_our_retries_are_found(policy: dict[str, Any] | None, codes: list[str]) -> None:
    topology = Topology(queues=(Queue("w.handle", {"x-delivery-limit": 100}),))
    queues = [{"name": name, "effective_policy_definition": policy, "policy": "p"} for name in ("w.handle", "others")]

    assert [finding.code for finding in of_queues(topology, queues)] == codes


REJECTS = {"x-queue-type": "quorum", "x-overflow": "reject-publish"}
LEVEL = {**REJECTS, "x-message-ttl": 6400, "x-dead-letter-strategy": "at-least-once"}
[TAPE] = events_topology(BrokerSettings(stream="holdfast.journal")).queues
STREAM = dict(TAPE.arguments)


@pytest.mark.parametrize(
    ("name", "arguments", "policy", "codes"),
    [
        ("w.handle", REJECTS, {"max-length": 10}, []),
        ("w.handle", REJECTS, {"max-length": 10, "overflow": "drop-head"}, ["policy-drops"]),
        ("w.handle", {"x-overflow": "reject-publish"}, {"max-length": 10, "overflow": "drop-head"}, []),
        ("w.handle", {}, {"max-length": 10, "overflow": "reject-publish"}, []),
        ("w.handle", {"x-max-length": 10}, {}, ["policy-drops"]),
        ("holdfast.journal", STREAM, {"max-length-bytes": 1, "max-age": "1D"}, []),
        ("w.handle", {"x-single-active-consumer": True}, {}, []),
        ("w.handle", {"x-delivery-limit": 5}, {"delivery-limit": 50}, ["delivery-limit-low"]),
        ("classic", {}, {"delivery-limit": 5}, []),
        ("holdfast.delays.06", LEVEL, {"message-ttl": 3_600_000}, []),
        ("holdfast.delays.06", LEVEL, {"message-ttl": 1000}, ["delay-short"]),
        ("holdfast.delays.06", LEVEL, {"max-length": 10}, []),
        ("holdfast.delays.06", LEVEL, {"expires": 1000}, ["policy-drops"]),
        ("holdfast.delays.06", LEVEL, {"overflow": "drop-head"}, ["policy-drops"]),
        ("holdfast.delays.06", LEVEL, {"dead-letter-strategy": "at-most-once"}, ["policy-drops"]),
        ("holdfast.queues", {"x-max-length": 10_000}, {"max-length": 20_000}, []),
    ],
)
def test_what_is_in_effect_is_judged_and_not_the_key_of_a_policy(
    name: str, arguments: dict[str, Any], policy: dict[str, Any], codes: list[str]
) -> None:
    declared = (
        Queue("w.handle", {**REJECTS, "x-delivery-limit": 100}),
        Queue("classic"),
        level_6(),
        TAPE,
        *registry().queues,
    )
    row = {"name": name, "arguments": arguments, "effective_policy_definition": policy, "policy": "p"}

    assert [finding.code for finding in of_queues(Topology(queues=declared), [row])] == codes


def level_6() -> Queue:
    return next(queue for queue in ladder.ladder(60).queues if queue.name == "holdfast.delays.06")


@pytest.mark.parametrize(
    ("policy", "operator_policy", "words"),
    [
        ("p", None, "by policy 'p'"),
        (None, "o", "by operator policy 'o'"),
        ("p", "o", "by policy 'p' or operator policy 'o'"),
        ("", "", "by the queue's argument"),
    ],
)
def test_the_origin_of_a_limit_is_named(policy: str | None, operator_policy: str | None, words: str) -> None:
    limits = {"expires": 9} if policy or operator_policy else {}
    row = {"name": "q", "arguments": {"x-expires": 9}, "effective_policy_definition": limits}
    row |= {"policy": policy, "operator_policy": operator_policy}

    [finding] = of_queues(Topology(queues=(Queue("q"),)), [row])

    assert finding.message == f"queue q: expires=9 {words}"


def test_arguments_that_others_declared_are_compared_with_ours_alone() -> None:
    topology = Topology(queues=(Queue("q", {"x-queue-type": "quorum", "x-delivery-limit": 100}),))
    alike = {
        "name": "q",
        "arguments": {"x-queue-type": "quorum", "x-delivery-limit": 100, "x-single-active-consumer": True},
    }
    other = {"name": "q", "arguments": {"x-queue-type": "quorum"}}

    assert of_arguments(topology, [alike, {"name": "theirs", "arguments": {}}]) == []
    assert [(finding.code, finding.message) for finding in of_arguments(topology, [other])] == [
        ("arguments-differ", "queue q: x-delivery-limit=None, not 100")
    ]


@pytest.mark.parametrize("mode", ["verify", "skip"])
def test_other_arguments_are_no_error_where_nothing_is_declared(mode: Any) -> None:
    found = of_difference(Difference("differs", "queue w.handle", "told"), mode)

    assert (found.code, found.kind.severity) == ("arguments-differ", "warning")


@pytest.mark.parametrize(
    ("timeout", "immediate", "queue", "found"),
    [
        (60, 0, {}, False),
        (901, 0, {}, True),  # it may wait for one more, fetched before it: twice 901 s
        (500, 1, {}, True),
        (901, 0, {"arguments": {"x-consumer-timeout": 7_200_000}}, False),
        (60, 0, {"effective_policy_definition": {"consumer-timeout": 100_000}}, True),
        (
            901,
            0,
            {"arguments": {"x-consumer-timeout": 7_200_000}, "effective_policy_definition": {"consumer-timeout": 1}},
            True,
        ),
    ],
)
def test_a_handler_that_may_outlast_the_consumer_timeout_is_found(
    timeout: float, immediate: int, queue: dict[str, Any], found: bool
) -> None:
    worker = Worker("w", settings=settings())

    @worker.handler(Paid, timeout=timeout, retry=Retry(immediate=immediate))
    async def handle(event: Paid) -> None: ...

    findings = of_handlers(worker.handlers, worker.settings, [{"name": "w.handle", **queue}])

    assert [finding.code for finding in findings] == ["consumer-timeout"] * found


@pytest.mark.parametrize(
    ("ledger", "waiting", "codes"),
    [
        (Depth(0, 0), Depth(0, 0), []),
        (Depth(1, 0), Depth(0, 0), []),
        (Depth(1, 0), Depth(1, 0), ["ledger-unowned"]),
        (Depth(2, 0), Depth(0, 0), ["ledger-unowned"]),
        (Depth(0, 1), Depth(0, 1), ["ledger-unowned"]),
    ],
)
def test_a_ledger_without_an_owner_is_a_finding_where_events_wait(
    ledger: Depth, waiting: Depth, codes: list[str]
) -> None:
    assert [finding.code for finding in of_unowned("w.project", ledger, waiting)] == codes


@pytest.mark.parametrize(
    ("states", "parked", "codes"),
    [
        ([], [0], []),
        (["waiting"], [4], []),
        (["waiting"], [5], ["ledger-filling"]),
        (["running"], [10], ["ledger-full"]),
        (["held"], [1], ["keys-held"]),
        (["held", "held"], [13], ["ledger-full", "keys-held"]),
        (["waiting"], [0, 10, 4, 5], ["ledger-full", "ledger-filling"]),
    ],
)
def test_a_ledger_is_judged_by_what_is_parked_in_it(states: list[str], parked: list[int], codes: list[str]) -> None:
    """Each partition by its own: when one is full, the keys of that one stand still."""
    keys = [{"key": f"k{number}", "state": state, "waiting": 1} for number, state in enumerate(states)]
    queues = {f"w.project.part.4.{number}": count for number, count in enumerate(parked)}

    assert [finding.code for finding in of_keys("w.project", {"keys": keys, "parked": queues}, 10)] == codes


def test_the_finding_about_held_keys_names_some_of_them() -> None:
    listed = [{"key": f"k{number}", "state": "held", "waiting": 1} for number in range(7)]

    [finding] = of_keys("w.project", {"keys": listed, "parked": {}}, 10_000)

    assert finding.message == "queue w.project: 7 key(s): k0, k1, k2, k3, k4, ..."


def test_clocks_are_compared_with_some_tolerance() -> None:
    assert of_clock(None, NOW) == of_clock(NOW + timedelta(seconds=4), NOW) == []
    assert [finding.code for finding in of_clock(NOW - timedelta(minutes=2), NOW)] == ["clock-off"]


def test_settings_that_give_something_up_are_found() -> None:
    found = of_settings(
        settings(
            broker={"url": "amqps://u:p@h/", "verify": False}, idempotency={"url": "rediss://h/0", "verify": False}
        )
    )
    memory = of_settings(settings(broker={"url": "amqp://h/"}, idempotency={"url": "memory://"}))

    assert [finding.code for finding in found] == ["tls-unverified"] * 2
    assert [finding.code for finding in memory] == ["claims-in-memory"]


@pytest.mark.parametrize(
    ("figures", "codes"),
    [
        ((0, None, 0, 0), []),
        ((7, 5.0, 0, 0), []),
        ((7, 61.0, 0, 0), ["relay-missing"]),
        ((7, 61.0, 0, 1), []),
        ((7, 61.0, 2, 17), ["outbox-held", "relays-idle"]),
    ],
)
def test_an_outbox_is_judged_by_its_age_what_is_held_and_its_relays(
    figures: tuple[int, float | None, int, int], codes: list[str]
) -> None:
    assert [finding.code for finding in of_outbox("shop", *figures)] == codes


@pytest.mark.parametrize(
    ("seen", "codes"),
    [
        ((299.0, "{autovacuum_vacuum_scale_factor=0}", 0, 100_000), []),
        ((301.0, "{autovacuum_vacuum_scale_factor=0}", 0, 100_001), ["transaction-long", "events-bloated"]),
        ((0.0, "", 200_000, 150_000), ["autovacuum-unset"]),
    ],
)
def test_postgres_is_judged_by_open_transactions_options_and_deleted_rows(
    seen: tuple[float, str, int, int], codes: list[str]
) -> None:
    assert [finding.code for finding in of_postgres("shop", *seen)] == codes


@pytest.mark.parametrize(("concurrency", "codes"), [(13, []), (14, ["pool-small"]), (None, ["pool-small"])])
def test_a_pool_has_a_connection_for_each_handler_and_two_for_its_relay(
    concurrency: int | None, codes: list[str]
) -> None:
    database = Database(create_async_engine("sqlite+aiosqlite:///shop.db", pool_size=5, max_overflow=10))
    worker = Worker("shop", settings=settings())

    @worker.handler(Paid, within=database, concurrency=concurrency)
    async def pay(event: Paid, ctx: Context, connection: AsyncConnection) -> None: ...

    assert [finding.code for finding in of_pool(database, worker.handlers, worker.settings)] == codes


def test_bindings_are_compared_but_not_those_of_what_is_missing() -> None:
    ours = (Binding("events", "q", "a"), Binding("events", "q", "b"), Binding("events", "gone", "a"))
    topology = Topology(queues=(Queue("q"), Queue("gone")), bindings=ours)
    rows = [
        {"source": source, "destination": queue, "routing_key": key, "destination_type": "queue"}
        for source, queue, key in (
            ("events", "q", "a"),
            ("events", "q", "old"),
            ("events", "theirs", "x"),
            ("", "q", "q"),
        )
    ]

    found = binding_differences(topology, rows, {"queue gone"})

    assert [(difference.kind, difference.object.rpartition(" ")[2]) for difference in found] == [
        ("unbound", "b"), ("surplus", "old"),
    ]  # fmt: skip


def test_the_page_has_a_section_for_each_finding_and_tells_what_the_doctor_tells() -> None:
    sections = (ROOT / "docs" / "doctor.md").read_text().split("\n## Findings\n")[1].split("\n### ")[1:]

    told = [tuple(part.strip() for part in section.split("\n\n")) for section in sections]

    assert told == [
        (code, f"{kind.severity.capitalize()}. {kind.title}.", kind.remedy) for code, kind in CATALOGUE.items()
    ]


def test_every_finding_of_the_catalogue_can_be_made_and_no_other() -> None:
    made = set(get_args(Danger))
    for file in (ROOT / "cli" / "doctor").glob("*.py"):
        if file.name != "catalogue.py":
            made |= set(codes_made_in(ast.parse(file.read_text())))

    assert made == set(CATALOGUE)


def codes_made_in(tree: ast.AST) -> Iterator[str]:
    """What is given to `Finding(...)`, or named `code` before."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="Finding"), args=[ast.Constant(value=str(code)), *_]):
                yield code
            case ast.Assign(targets=[ast.Name(id="code")], value=ast.Constant(value=str(code))):
                yield code


async def test_the_management_api_of_the_next_host_is_asked_where_the_first_is_silent() -> None:
    """On two addresses of this machine that no other server has."""

    class Api(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"[]")

        def log_message(self, *arguments: Any) -> None: ...

    with HTTPServer(("127.0.0.9", 15672), Api) as server:
        serving = asyncio.create_task(asyncio.to_thread(server.serve_forever))
        management = Management(BrokerSettings(url="amqp://guest@127.0.0.8,127.0.0.9/"))  # type: ignore[arg-type]
        try:
            queues = await management.queues()
        finally:
            server.shutdown()
            await serving

    assert (queues, management.url) == ([], "http://127.0.0.9:15672")
