"""What the doctor finds of servers that are old, whose clock is off, or that do not tell about themselves."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from breaking import delete
from builders import a_message
from commands import environment, holdfast
from proxy import Direction, proxy_to
from rabbits import Rabbit
from redises import LOOPBACK, a_redis
from running import a_broker, settings_for
from waiting import LIMIT, eventually

from holdfast import PublishRefused
from holdfast.broker import Broker, Management, Queue, Topology
from holdfast.cli.doctor.effective import Effective
from holdfast.config import BrokerSettings
from holdfast.events import Message


async def findings(folder: Path, **variables: str) -> dict[str, str]:
    """What `doctor --json` tells, by code."""
    done = await asyncio.to_thread(holdfast, "doctor", "--json", folder=folder, env=environment(**variables))
    return {finding["code"]: finding["message"] for finding in json.loads(done.stdout)["findings"]}


def older_broker(data: bytes, way: Direction) -> bytes:
    """Names a version of the same length in the handshake: 3.9, or 3.09."""
    named = rb"(\x07versionS....)(\d+)\.(\d+)\.(\d+)"
    return re.sub(
        named, lambda m: m[1] + b"3." + b"9".rjust(m.end() - m.start(2) - 4, b"0") + b".0", data, flags=re.DOTALL
    )


def last_year(data: bytes, way: Direction) -> bytes:
    return re.sub(rb"(?i)(\ndate: .{12})(\d{4})", lambda m: m[1] + str(int(m[2]) - 1).encode(), data)


def older_redis(data: bytes, way: Direction) -> bytes:
    return re.sub(rb"redis_version:\d", b"redis_version:6", data)


async def test_old_servers_and_a_clock_that_is_off_are_found(tmp_path: Path, rabbit: Rabbit, redis_url: str) -> None:
    """The servers are of today and on this machine; a proxy changes what they say of their version and of the time."""
    async with (
        proxy_to(rabbit.node.url) as broker,
        proxy_to(rabbit.management_url) as management,
        proxy_to(redis_url) as redis,
    ):
        urls = {
            "HOLDFAST_BROKER__URL": broker.url(rabbit.node.url),
            "HOLDFAST_BROKER__MANAGEMENT_URL": management.url(rabbit.management_url),
            "HOLDFAST_IDEMPOTENCY__URL": redis.url(redis_url),
        }
        before = await findings(tmp_path, **urls)
        broker.alter, management.alter, redis.alter = older_broker, last_year, older_redis
        after = await findings(tmp_path, **urls)

    assert not {"broker-old", "clock-off", "redis-old"} & set(before)
    assert re.fullmatch(r"RabbitMQ 3\.0?9\.0", after["broker-old"])
    assert after["clock-off"].endswith(" s apart")
    assert "Redis 6." in after["redis-old"]


async def test_a_redis_user_who_may_not_read_info_is_noted(tmp_path: Path, rabbit: Rabbit) -> None:
    users = tmp_path / "users.acl"
    users.write_text("user default on nopass ~* +@all\nuser worker on >s3cret ~* +@all -info\n")

    with a_redis(tmp_path, "--aclfile", str(users)) as port:
        found = await findings(
            tmp_path,
            HOLDFAST_BROKER__URL=rabbit.node.url,
            HOLDFAST_BROKER__MANAGEMENT_URL=rabbit.management_url,
            HOLDFAST_IDEMPOTENCY__URL=f"redis://worker:s3cret@{LOOPBACK}:{port}/0",
        )

    assert found["redis-unread"].startswith("this user may not read INFO")
    assert not {"redis-unreachable", "redis-old", "redis-evicts", "redis-forgets"} & set(found)


@pytest.mark.parametrize(("kind", "wins"), [("classic", "reject-publish"), ("quorum", "drop-head")])
async def test_the_mode_that_the_doctor_judges_is_the_one_the_broker_heeds(
    rabbit: Rabbit, unique: str, kind: str, wins: str
) -> None:
    """The queue's argument refuses what is too much, and a policy drops it: one of them has precedence."""
    settings = settings_for(rabbit.node.url, unique)
    broker_settings = BrokerSettings(url=rabbit.node.url, management_url=rabbit.management_url)  # type: ignore[arg-type]
    arguments = {"x-queue-type": kind, "x-max-length": 1, "x-overflow": "reject-publish"}
    async with a_broker(settings) as broker:
        await broker.declare(Topology(queues=(Queue(unique, arguments),)))
        rabbit.node.ctl("set_policy", unique, f"^{unique}$", '{"overflow": "drop-head"}', "--apply-to", "queues")
        row: dict[str, Any] = {}

        async def is_effective() -> bool:
            row.update(*(one for one in await Management(broker_settings).queues() if one["name"] == unique))
            return bool(row.get("effective_policy_definition"))

        await eventually(is_effective, every=0.2)
        message = a_message(exchange="", routing_key=unique)
        tries = [await outcome_of(broker, message) for _ in range(20)]
    rabbit.node.ctl("clear_policy", unique)
    await delete(settings, queues=(unique,))

    refused = PublishRefused in tries
    assert ("reject-publish" if refused else "drop-head") == Effective(row).mode("overflow") == wins


async def outcome_of(broker: Broker, message: Message) -> type[Exception] | None:
    try:
        await broker.publish(message, timeout=LIMIT)
    except PublishRefused as error:
        return type(error)
    return None
