"""`holdfast topology`, `check --connect` and `doctor` against a real broker with its management API."""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from apps import copy_app
from commands import environment, holdfast
from rabbits import Rabbit
from redises import LOOPBACK, a_redis
from running import a_broker, settings_for
from waiting import eventually

from holdfast.broker import Exchange, Queue, Topology, work_queue

Tool = Callable[..., Any]


@pytest.fixture
def env(rabbit: Rabbit, unique: str, redis_url: str) -> dict[str, str]:
    files = {f"HOLDFAST_BROKER__{name.upper()}": file for name, file in rabbit.files.items()}
    return environment(
        HOLDFAST_BROKER__URL=rabbit.url,
        HOLDFAST_BROKER__MANAGEMENT_URL=rabbit.management_url,
        HOLDFAST_BROKER__EXCHANGE=unique,
        HOLDFAST_BROKER__MAX_DELAY="60",
        HOLDFAST_IDEMPOTENCY__URL=redis_url,
        **files,
    )


@pytest.fixture
def folder(tmp_path: Path, unique: str) -> Path:
    copy_app("one_queue", tmp_path, NAME=unique, TYPE=f"{unique}.order")
    return tmp_path


@pytest.fixture
def clean(rabbit: Rabbit, unique: str) -> Iterator[None]:
    """What a test sets on the broker for its own queues is gone after it."""
    yield
    rabbit.node.ctl("clear_policy", unique)
    rabbit.node.ctl("set_vm_memory_high_watermark", "0.6")


def codes(done: Any) -> dict[str, str]:
    """What `doctor --json` found: what it told, by code; notes left out."""
    findings = json.loads(done.stdout)["findings"]
    return {finding["code"]: finding["message"] for finding in findings if finding["severity"] != "note"}


def test_show_tells_all_that_apply_creates_and_diff_finds_nothing_afterwards(
    folder: Path, env: dict[str, str], unique: str
) -> None:
    shown = holdfast("topology", "show", "app:worker", folder=folder, env=env)
    told = json.loads(holdfast("topology", "show", "app:worker", "--json", folder=folder, env=env).stdout)
    before = holdfast("topology", "diff", "app:worker", folder=folder, env=env)
    listed = holdfast("topology", "diff", "app:worker", "--json", folder=folder, env=env)
    applied = json.loads(holdfast("topology", "apply", "app:worker", "--json", folder=folder, env=env).stdout)
    again = holdfast("topology", "apply", "app:worker", folder=folder, env=env)
    after = holdfast("topology", "diff", "app:worker", "--json", folder=folder, env=env)

    assert f"queue {unique}.handle x-queue-type=quorum" in shown.stdout
    assert f"binding of queue {unique}.handle to {unique} for {unique}.order" in shown.stdout
    assert before.returncode == 1 and f"missing: there is no queue {unique}.handle\n" in before.stdout
    missing = {"kind": "missing", "object": f"queue {unique}.handle", "message": f"there is no queue {unique}.handle"}
    assert missing in json.loads(listed.stdout)["differences"]
    assert applied["applied"] == {part: len(things) for part, things in told.items()}
    assert again.returncode == 0 and again.stdout.startswith("there: ")
    assert (after.returncode, json.loads(after.stdout)["differences"]) == (0, [])


def test_diff_names_bindings_and_arguments_that_differ_and_apply_and_check_refuse(
    folder: Path, env: dict[str, str], unique: str
) -> None:
    holdfast("topology", "apply", "app:worker", folder=folder, env=env)
    copy_app("one_queue", folder, NAME=unique, TYPE=f"{unique}.bill")
    classic = env | {"HOLDFAST_BROKER__QUEUE_TYPE": "classic"}

    done = holdfast("topology", "diff", "app:worker", folder=folder, env=classic)
    applied = holdfast("topology", "apply", "app:worker", folder=folder, env=classic)
    checked = holdfast("check", "app:worker", "--connect", folder=folder, env=classic)
    found = holdfast("doctor", "app:worker", "--json", folder=folder, env=classic)

    binding = f"binding of queue {unique}.handle to {unique} for {unique}"
    assert done.returncode == 1
    assert (
        f"unbound: {binding}.bill is missing" in done.stdout and f"surplus: {binding}.order is not ours" in done.stdout
    )
    assert f"differs: queue '{unique}.handle' exists with" in done.stdout
    for refused in (applied, checked):
        [line] = refused.stderr.splitlines()
        assert refused.returncode == 1 and "exists with" in line
    assert {"topology-differs", "binding-missing", "binding-surplus"} <= set(codes(found))
    assert found.returncode == 1


def test_check_connects_on_request_and_says_what_it_reached(folder: Path, env: dict[str, str]) -> None:
    verify = env | {"HOLDFAST_BROKER__TOPOLOGY": "verify"}

    done = holdfast("check", "app:worker", "--connect", folder=folder, env=env)
    missing = holdfast("check", "app:worker", "--connect", folder=folder, env=verify)
    away = env | {"HOLDFAST_IDEMPOTENCY__URL": "redis://127.0.0.1:1/0"}
    unreached = holdfast("check", "app:worker", "--connect", folder=folder, env=away)

    assert done.returncode == 0, done.stderr
    assert "broker reached: RabbitMQ 3." in done.stdout or "broker reached: RabbitMQ 4." in done.stdout
    assert "claim store reached" in done.stdout
    assert missing.returncode == 1 and "there is no queue" in missing.stderr
    assert unreached.returncode == 1 and "no connection to Redis" in unreached.stderr


def test_a_well_kept_place_has_no_findings_and_exit_0(folder: Path, env: dict[str, str], tmp_path: Path) -> None:
    holdfast("topology", "apply", "app:worker", folder=folder, env=env)

    with a_redis(tmp_path) as port:
        kept = env | {"HOLDFAST_IDEMPOTENCY__URL": f"redis://{LOOPBACK}:{port}/0"}
        done = holdfast("doctor", "app:worker", folder=folder, env=kept)

    assert done.returncode == 0, done.stdout
    assert done.stdout.endswith("0 error(s), 0 warning(s), 0 note(s)\n"), done.stdout


async def test_the_doctor_finds_what_is_unsafe_together(
    folder: Path, env: dict[str, str], rabbit: Rabbit, unique: str, tmp_path: Path, clean: None
) -> None:
    holdfast("topology", "apply", "app:worker", folder=folder, env=env)
    rabbit.node.ctl("delete_queue", f"{unique}.handle.dead")
    policy = '{"delivery-limit": 3, "message-ttl": 60000}'
    rabbit.node.ctl("set_policy", unique, f"^{unique}", policy, "--apply-to", "queues")
    rabbit.node.ctl("set_vm_memory_high_watermark", "0.00001")
    copy_app("one_queue", folder, NAME=unique, TYPE=f"{unique}.order", TIMEOUT=3600)

    with a_redis(tmp_path, "--maxmemory-policy", "allkeys-lru", "--appendonly", "no") as port:
        unsafe = env | {
            "HOLDFAST_IDEMPOTENCY__URL": f"redis://{LOOPBACK}:{port}/0",
            "HOLDFAST_IDEMPOTENCY__TTL": "10",
            "HOLDFAST_BROKER__VERIFY": "false",
        }

        async def found() -> set[str]:
            doctor = ("doctor", "app:worker", "--json")
            return set(codes(await asyncio.to_thread(holdfast, *doctor, folder=folder, env=unsafe)))

        expected = {
            "broker-alarm", "dead-letters-missing", "policy-drops", "delivery-limit-low", "consumer-timeout",
            "window-short", "redis-evicts", "redis-forgets", "tls-unverified",
        }  # fmt: skip
        await eventually(found, expected)  # the node tells its API of a change some time later
        told = holdfast("doctor", "app:worker", folder=folder, env=unsafe)

    assert told.returncode == 1
    assert f"queue {unique}.handle: delivery-limit=3 by policy '{unique}'" in told.stdout
    assert told.stdout.index("error: An alarm") < told.stdout.index("warning: Certificates are not verified")


async def test_what_operators_declare_and_limit_is_judged_by_its_effect(
    folder: Path, env: dict[str, str], rabbit: Rabbit, unique: str
) -> None:
    """A queue with a single active consumer, declared by others; bounded by rejecting, by an operator's policy."""
    name, verify = f"{unique}.handle", env | {"HOLDFAST_BROKER__TOPOLOGY": "verify"}
    theirs = work_queue(name, kind="quorum", exchange=unique, keys=(f"{unique}.order",))
    dead, work = theirs.queues
    work = Queue(name, {**work.arguments, "x-single-active-consumer": True})
    async with a_broker(settings_for(rabbit.node.url, unique)) as broker:
        await broker.declare(Topology((Exchange(unique),), (dead, work), theirs.bindings))
    copy_app("one_queue", folder, NAME=unique, TYPE=f"{unique}.order")
    rabbit.node.ctl("set_operator_policy", unique, f"^{name}$", '{"max-length": 100000}', "--apply-to", "queues")

    async def found() -> dict[str, str]:
        done = await asyncio.to_thread(holdfast, "doctor", "app:worker", "--json", folder=folder, env=verify)
        ours = codes(done).items()
        return {code: message for code, message in ours if name in message and code != "binding-missing"}

    bounded = await found()
    operator = '{"delivery-limit": 3, "max-length": 100000}'
    rabbit.node.ctl("set_operator_policy", unique, f"^{name}$", operator, "--apply-to", "queues")

    assert bounded == {}
    expected = {"delivery-limit-low": f"queue {name}: delivery-limit=3 by operator policy '{unique}'"}
    await eventually(found, expected)


def test_what_cannot_be_reached_or_read_is_said_plainly(folder: Path, env: dict[str, str], rabbit: Rabbit) -> None:
    away = env | {
        "HOLDFAST_BROKER__URL": "amqp://guest:canary@127.0.0.1:1/",
        "HOLDFAST_IDEMPOTENCY__URL": "redis://127.0.0.1:1/0",
    }
    away = {name: value for name, value in away.items() if not name.endswith("_FILE")}
    closed = env | {"HOLDFAST_BROKER__MANAGEMENT_URL": "http://guest:canary@127.0.0.1:1"}

    unreached = holdfast("doctor", "--json", folder=folder, env=away)
    unread = holdfast("doctor", folder=folder, env=closed)
    stranger = env | {"HOLDFAST_BROKER__MANAGEMENT_URL": rabbit.management_url.replace("guest:guest", "guest:canary")}
    refused = holdfast("doctor", folder=folder, env=stranger)
    nowhere = holdfast("doctor", folder=folder, env=env | {"HOLDFAST_BROKER__URL": "memory://"})

    assert unreached.returncode == 1 and set(codes(unreached)) == {"broker-unreachable", "redis-unreachable"}
    assert "[management-unread]" in unread.stdout and "Connection refused" in unread.stdout
    assert "[management-unread]" in refused.stdout and "this user may not ask it" in refused.stdout
    assert nowhere.returncode == 1 and len(nowhere.stderr.splitlines()) == 1
    assert "canary" not in unreached.stdout + unread.stdout + refused.stdout
