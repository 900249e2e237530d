"""What is measured: for each scenario its job, and how many messages each contender gets, to take some seconds."""

from dataclasses import dataclass
from types import MappingProxyType

from work import Job


@dataclass(frozen=True)
class Scenario:
    name: str
    title: str
    job: Job
    counts: dict[str, int]
    repeated: bool = True


def job(role: str = "consume", **changes: object) -> Job:
    return Job(role=role, rabbitmq="", redis="", queue="", queue_type="classic", count=0, **changes)  # type: ignore[arg-type]


CONSUMERS = {
    "holdfast": 60_000, "holdfast_pure": 60_000, "c": 60_000, "aiormq": 15_000, "aio_pika": 12_000,
    "faststream": 10_000, "taskiq": 6_000, "celery": 5_000, "dramatiq": 5_000,
}  # fmt: skip
PUBLISHERS = {
    "holdfast": 1.0,
    "holdfast_pure": 1.0,
    "c": 1.0,
    "aiormq": 1.0,
    "aio_pika": 1.0,
    "faststream": 1.0,
    "taskiq": 1.0,
}
SOME = {"holdfast": 30_000, "holdfast_pure": 30_000, "aio_pika": 8_000, "faststream": 6_000}
ONLY = {"holdfast": 20_000}


def publishers(count: int, **more: int) -> dict[str, int]:
    return {name: int(share * count) for name, share in PUBLISHERS.items()} | more


def _scenarios() -> list[Scenario]:
    found = [
        Scenario("consume-classic", "classic queue, prefetch 200", job(), CONSUMERS),
        Scenario(
            "consume-quorum", "quorum queue, prefetch 200", _quorum(job()),
            {name: count for name, count in CONSUMERS.items() if name not in ("celery", "dramatiq")},
        ),
        Scenario(
            "consume-headers", "quorum queue, prefetch 200, with the headers that Holdfast writes",
            _quorum(job(headers=True)), {**SOME, "holdfast": 60_000, "holdfast_pure": 60_000},
        ),
        Scenario("consume-idempotent", "claim and completion in Redis", job(idempotent=True), SOME),
        Scenario("publish-1", "one by one", job("publish"), publishers(3_000, celery=3_000, dramatiq=3_000)),
        Scenario("publish-100", "100 in flight", job("publish", in_flight=100), publishers(15_000)),
        Scenario("publish-1000", "1000 in flight", job("publish", in_flight=1000), publishers(15_000)),
        Scenario(
            "chain", "consume, publish one, ack", job(chain=True),
            {"holdfast": 10_000, "aio_pika": 5_000, "faststream": 5_000},
        ),
        Scenario(
            "latency", "publish to handler at 500 a second", job(rate=500),  # 20,000 samples in three runs
            {"holdfast": 7_000, "aio_pika": 7_000, "faststream": 7_000},
        ),
    ]  # fmt: skip
    found += [
        Scenario(
            f"processes-{number}", f"handlers that use some 0.3 ms of CPU, processes: {number}",
            job(processes=number, spin=400), {"holdfast": 20_000},
        )
        for number in (1, 2)
    ]  # fmt: skip
    found += [
        Scenario(
            f"backlog-{count}", f"messages waiting at the start: {count:,}", job(), {"holdfast": count}, repeated=False
        )
        for count in (1_000, 30_000, 1_000_000)
    ]
    found += [
        Scenario(
            f"handlers-{number}",
            f"messages for one handler, handlers in the process: {number}",
            job(handlers=number),
            ONLY,
        )
        for number in (1, 20, 200)
    ]
    found += [
        Scenario(
            f"sleeping-{number}", f"handlers that sleep 10 ms, at once: {number}",
            job(sleep=0.01, concurrency=number, prefetch=2 * number), {"holdfast": 60 * number + 100},
        )
        for number in (1, 20, 100, 500)
    ]  # fmt: skip
    found += [
        Scenario(f"body-{size}", f"bodies of {size:,} bytes", job(size=size), {"holdfast": count, "aio_pika": count})
        for size, count in ((200, 10_000), (10_000, 10_000), (100_000, 2_000), (1_000_000, 300))
    ]
    return found


def _quorum(classic: Job) -> Job:
    return Job(**{**classic.__dict__, "queue_type": "quorum"})


SCENARIOS = MappingProxyType({scenario.name: scenario for scenario in _scenarios()})
