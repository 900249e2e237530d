"""The image is built and run as `compose.yaml` says: what it is, what it may, how it ends, and who watches it."""

import json
import re
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from apps import copy_app
from containers import COMPOSE, ROOT, Container, build, engine, network, run_once, started
from queries import alerts, dashboard_queries, names_in
from waiting import blocking, eventually

IMAGE = COMPOSE["services"]["worker"]["image"]
BASE = "docker.io/library/python:3.13-slim"
LIMIT = 150_000_000
EVENTS = 50

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def image() -> str:
    return build(IMAGE, ROOT)


@pytest.fixture(scope="module")
def net(image: str) -> Iterator[str]:
    with network("holdfast-test") as name:
        yield name


@pytest.fixture(scope="module")
def workers(net: str) -> Iterator[list[Container]]:
    """Two workers, with RabbitMQ and Redis."""
    with (
        started("rabbitmq", net),
        started("redis", net),
        started("worker", net, name="worker") as one,
        started("worker", net, name="worker-2") as two,
    ):
        for worker in (one, two):
            blocking(eventually(lambda w=worker: bool(w.lines("worker.started"))))  # type: ignore[misc]
        yield [one, two]


def test_the_image_is_small_and_says_so(image: str, capsys: pytest.CaptureFixture[str]) -> None:
    size, base = (int(engine("image", "inspect", "--format", "{{.Size}}", name)) for name in (image, BASE))

    with capsys.disabled():
        print(f"\n{image}: {size / 1e6:.1f} MB, {(size - base) / 1e6:.1f} MB above {BASE} ({base / 1e6:.1f} MB)")
    assert 0 < size - base < LIMIT


def test_the_image_runs_as_a_numbered_user_and_holds_neither_pip_nor_sources(image: str) -> None:
    config = json.loads(engine("image", "inspect", "--format", "{{json .Config}}", image))

    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["holdfast"]
    listing = engine("run", "--rm", "--entrypoint", "find", image, "/src", "/opt/holdfast/bin", check=False)
    assert "/src" not in listing and "/pip" not in listing and "/opt/holdfast/bin/holdfast" in listing


def test_a_worker_has_no_privileges_and_nowhere_to_write(workers: list[Container]) -> None:
    status = workers[0].run("cat", "/proc/1/status")

    assert re.search(r"^Uid:\s+10001\s", status, re.MULTILINE)
    assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE) and re.search(r"^CapBnd:\s+0+$", status, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
    assert not any(workers[0].well(["touch", f"{folder}/file"]) for folder in ("/app", "/tmp", "/opt/holdfast", "/"))


def test_probes_answer_and_the_health_check_knows_a_worker_from_none(image: str, workers: list[Container]) -> None:
    check = json.loads(engine("image", "inspect", "--format", "{{json .Config.Healthcheck.Test}}", image))

    assert json.loads(get(f"http://{workers[0].address}:9464/readyz")) == {"ready": True, "missing": []}
    assert json.loads(get(f"http://{workers[0].address}:9464/livez"))["live"] is True
    assert check[0] == "CMD" and workers[0].well(check[1:])
    assert not workers[0].well(["env", "HOLDFAST_HTTP__PORT=1", *check[1:]])


def test_workers_handle_events_and_prometheus_sees_every_one(net: str, workers: list[Container]) -> None:
    with started("prometheus", net) as container:
        prometheus = Prometheus(container)
        publish(workers[0], "order.created", *({"order_id": f"o-{n}", "total": "9.50"} for n in range(EVENTS)))
        publish(workers[0], "order.created", {"order_id": "free", "total": "0"})

        charged = lambda: sum(len(worker.lines("receipt.sent")) for worker in workers)  # noqa: E731
        blocking(eventually(lambda: charged() == EVENTS))
        blocking(
            eventually(
                lambda: prometheus.value('sum(holdfast_messages_settled_total{outcome="handled"})') == 2 * EVENTS
            )
        )
        blocking(eventually(lambda: prometheus.value('holdfast_dead_letters_total{reason="refused"}') == 1))
        blocking(
            eventually(
                lambda: prometheus.value('rabbitmq_detailed_queue_messages_ready{queue="billing.charge.dead"}') == 1
            )
        )
        blocking(eventually(lambda: prometheus.firing("HoldfastDeadLetters")))

        targets = prometheus.get("targets")["activeTargets"]
        assert sorted((t["labels"]["job"], t["health"]) for t in targets) == [
            *2 * [("holdfast", "up")], ("rabbitmq", "up"), ("rabbitmq-queues", "up"),
        ]  # fmt: skip
        assert {rule["health"] for rule in prometheus.rules()} == {"ok"}
        asked = {name for q in [*dashboard_queries(), *(alert["expr"] for alert in alerts())] for name in names_in(q)}
        blocking(eventually(lambda: asked - set(prometheus.get("label/__name__/values")), NOT_YET))


# What has a series only once there is something to say; what comes with `--processes`, ordered handlers or a database.
NOT_YET = {
    *("holdfast_retries_total", "holdfast_paused", "holdfast_task_failures_total", "holdfast_unfollowed_total"),
    *("holdfast_processes", "holdfast_process_deaths_total"),
    *("holdfast_parked", "holdfast_held_keys", "holdfast_partitions_owned", "holdfast_lane_wait_seconds"),
    *("holdfast_outbox_pending", "holdfast_outbox_oldest_seconds", "holdfast_outbox_held", "holdfast_outbox_shards"),
    *("holdfast_outbox_seconds_bucket", "holdfast_inbox_total", "holdfast_projection_lag_seconds"),
    *("holdfast_sagas", "holdfast_saga_oldest_seconds"),
}


def test_the_tools_for_dead_letters_have_a_folder_to_write_in(net: str, workers: list[Container]) -> None:
    publish(workers[0], "order.created", {"order_id": "free", "total": "0"})
    blocking(eventually(lambda: any(worker.lines("delivery.settled", reason="refused") for worker in workers)))

    assert "billing.charge" in run_once("tools", net, "dead", "list")


def test_a_worker_that_is_stopped_finishes_what_it_handles(net: str, workers: list[Container], tmp_path: Path) -> None:
    copy_app("slow", tmp_path)
    tmp_path.chmod(0o755)
    with started("worker", net, name="slow", app=tmp_path) as slow:
        blocking(eventually(lambda: bool(slow.lines("worker.started"))))
        publish(slow, "slow", {})
        blocking(eventually(lambda: "handling" in slow.log))

        code = slow.stop()

        assert code == 0
        assert slow.lines("worker.draining", running=1)
        assert slow.lines("delivery.settled", outcome="handled") and slow.lines("worker.stopped")


def test_an_image_made_as_the_documentation_says_runs_its_worker(image: str, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    recipe = re.search(r"^```text\n# Dockerfile\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert recipe and f"FROM {image}" in recipe[1]
    (tmp_path / "Dockerfile").write_text(recipe[1])
    (tmp_path / "requirements.txt").write_text("aiosqlite==0.22.1\n")
    (tmp_path / "app.py").write_text("import aiosqlite\n" + (ROOT / "examples" / "worker" / "app.py").read_text())

    name = build("holdfast-test-billing", tmp_path)

    assert "billing.charge" in engine("run", "--rm", name, "check", "app:worker")


class Prometheus:
    def __init__(self, container: Container) -> None:
        self._url = f"http://{container.address}:9090/api/v1"
        blocking(eventually(lambda: "Server is ready" in container.log))

    def get(self, path: str) -> Any:
        return json.loads(get(f"{self._url}/{path}"))["data"]

    def value(self, query: str) -> float | None:
        found = self.get("query?" + urllib.parse.urlencode({"query": query}))["result"]
        return float(found[0]["value"][1]) if found else None

    def rules(self) -> list[dict[str, Any]]:
        return [rule for group in self.get("rules")["groups"] for rule in group["rules"]]

    def firing(self, name: str) -> bool:
        return any(rule["name"] == name and rule["state"] == "firing" for rule in self.rules())


def publish(worker: Container, kind: str, *events: dict[str, str]) -> None:
    lines = "\n".join(json.dumps(event) for event in events)
    worker.run("sh", "-c", f"printf '%s' '{lines}' | holdfast publish {kind} -")


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())
