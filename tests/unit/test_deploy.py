"""What ships for deploying fits its schemas, and fits what Holdfast really has: settings, queues, ports."""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import util
from pathlib import Path
from textwrap import indent
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from holdfast import Settings, Worker
from holdfast.broker.pause import RECONNECT
from holdfast.config import known_variables
from holdfast.consumer.options import DEFAULTS

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
PROMETHEUS: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text()
OPERATORS = {"keda.sh": "keda.json", "monitoring.coreos.com": "prometheus-operator.json"}
DRAIN = 15  # seconds after the grace that docs/operations.md asks for


def manifests() -> Iterator[dict[str, Any]]:
    for file in sorted(KUBERNETES.glob("**/*.yaml")):
        yield from (found for found in yaml.safe_load_all(file.read_text()) if found["kind"] != "Kustomization")


def manifest(kind: str) -> dict[str, Any]:
    [found] = [each for each in manifests() if each["kind"] == kind]
    return found


def container() -> dict[str, Any]:
    found: dict[str, Any] = manifest("Deployment")["spec"]["template"]["spec"]["containers"][0]
    return found


def example_worker() -> Worker:
    spec = util.spec_from_file_location("example_worker", ROOT / "examples" / "worker" / "app.py")
    assert spec and spec.loader
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Worker = module.worker
    return found


@pytest.mark.parametrize("found", tuple(manifests()), ids=lambda found: found["kind"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_each_manifest_fits_its_schema(found: dict[str, Any]) -> None:
    if schema := OPERATORS.get(found["apiVersion"].partition("/")[0]):
        jsonschema.validate(found, json.loads((ROOT / "tests" / "support" / "schemas" / schema).read_text()))
    else:
        kubernetes_validate.validate(found, "1.33", strict=True)


def test_the_kustomization_names_every_manifest_but_the_secret() -> None:
    told = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())

    assert set(told["resources"]) == {file.name for file in KUBERNETES.glob("*.yaml")} - {
        "kustomization.yaml",
        "secret.example.yaml",
    }
    assert [image["name"] for image in told["images"]] == [container()["image"]]


def test_the_compose_file_fits_its_schema() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr


def test_what_the_compose_file_mounts_is_there() -> None:
    mounted = [volume for service in COMPOSE["services"].values() for volume in service.get("volumes", [])]
    sources = [volume.split(":")[0] for volume in mounted]

    assert all((ROOT / source).exists() for source in sources if source.startswith("."))
    assert {source for source in sources if not source.startswith(".")} == set(COMPOSE["volumes"])


def test_every_variable_that_is_set_is_a_setting() -> None:
    in_compose = [name for name in COMPOSE["services"]["worker"]["environment"] if name.startswith("HOLDFAST_")]
    in_kubernetes = [variable["name"] for variable in container()["env"]]
    in_dockerfile = re.findall(r"^(?:ENV )?\s+?(HOLDFAST_\w+)=", DOCKERFILE, re.MULTILINE)

    assert in_compose and in_kubernetes and in_dockerfile
    assert {*in_compose, *in_kubernetes, *in_dockerfile} <= known_variables().keys()


def test_whoever_stops_a_worker_waits_longer_than_its_grace() -> None:
    compose = COMPOSE["services"]["worker"]
    pod = manifest("Deployment")["spec"]["template"]["spec"]
    grace = {variable["name"]: variable.get("value") for variable in container()["env"]}["HOLDFAST_WORKER__GRACE"]

    assert (
        int(compose["stop_grace_period"].removesuffix("s"))
        > int(compose["environment"]["HOLDFAST_WORKER__GRACE"]) + DRAIN
    )
    assert pod["terminationGracePeriodSeconds"] > int(grace) + DRAIN


def test_probes_prometheus_and_the_health_check_ask_where_the_worker_serves() -> None:
    port = known_variables()["HOLDFAST_HTTP__PORT"].default
    pod = manifest("Deployment")["spec"]["template"]
    probes = {
        kind: container()[kind]["httpGet"]["path"] for kind in ("startupProbe", "livenessProbe", "readinessProbe")
    }

    assert container()["ports"] == [{"name": "http", "containerPort": port}]
    assert probes == {"startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz"}
    assert pod["metadata"]["annotations"]["prometheus.io/port"] == str(port)
    assert PROMETHEUS["scrape_configs"][0]["dns_sd_configs"][0]["port"] == port
    assert f"EXPOSE {port}" in DOCKERFILE and f"'{port}') + '/livez'" in DOCKERFILE


def test_the_prometheus_operator_finds_the_pods_and_their_port() -> None:
    monitor, pod = manifest("PodMonitor")["spec"], manifest("Deployment")["spec"]["template"]
    [endpoint] = monitor["podMetricsEndpoints"]

    assert monitor["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert endpoint["port"] in [port["name"] for port in container()["ports"]]
    assert endpoint["path"] == pod["metadata"]["annotations"]["prometheus.io/path"]


def test_the_prometheus_operator_is_given_the_rules_word_for_word() -> None:
    rules = (ROOT / "deploy" / "prometheus" / "holdfast.rules.yml").read_text()

    _, _, given = (KUBERNETES / "operator" / "prometheusrule.yaml").read_text().partition("\nspec:\n")

    assert given == indent("groups:" + rules.partition("groups:")[2], "  ")


def test_keda_counts_every_queue_of_the_worker() -> None:
    scaled = manifest("ScaledObject")["spec"]

    counted = [trigger["metadata"]["queueName"] for trigger in scaled["triggers"]]

    assert sorted(counted) == sorted(handler.queue for handler in example_worker().handlers)
    assert scaled["scaleTargetRef"]["name"] == manifest("Deployment")["metadata"]["name"]
    assert {t["authenticationRef"]["name"] for t in scaled["triggers"]} == {
        manifest("TriggerAuthentication")["metadata"]["name"]
    }
    assert "replicas" not in manifest("Deployment")["spec"]


def test_secrets_are_asked_for_by_keys_that_the_example_has() -> None:
    asked = [variable["valueFrom"]["secretKeyRef"] for variable in container()["env"] if "valueFrom" in variable]
    asked += manifest("TriggerAuthentication")["spec"]["secretTargetRef"]
    secret = manifest("Secret")

    assert {reference["name"] for reference in asked} == {secret["metadata"]["name"]}
    assert {reference["key"] for reference in asked} == secret["stringData"].keys()


def test_the_image_runs_as_a_number_in_exec_form() -> None:
    assert re.search(r"^USER \d+:\d+$", DOCKERFILE, re.MULTILINE)
    for instruction in ("ENTRYPOINT", "CMD"):
        [form] = re.findall(rf"^{instruction} (.*)$", DOCKERFILE, re.MULTILINE)
        assert json.loads(form)
    assert json.loads(re.findall(r"^HEALTHCHECK .*? CMD (.*)$", DOCKERFILE, re.MULTILINE)[0])
    user = manifest("Deployment")["spec"]["template"]["spec"]["securityContext"]["runAsUser"]
    assert f"USER {user}:" in DOCKERFILE


def test_the_builder_is_given_what_the_wheel_is_made_of_and_nothing_else() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    folders = {package.split(".")[1] for package in project["tool"]["setuptools"]["packages"] if "." in package}
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]

    files = {"pyproject.toml", "constraints.txt", "README.md", "LICENSE", "py.typed", "*.py"}
    assert lines[0] == "*" and lines[-1] == "**/__pycache__"
    assert {line.removeprefix("!") for line in lines[1:-1]} == folders | files


def test_the_image_has_the_version_of_the_project() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    files = [ROOT / "Dockerfile", ROOT / "compose.yaml", ROOT / "docs" / "operations.md"]

    told = {tag for file in files for tag in re.findall(r"\bholdfast:(\d[\w.]*)", file.read_text())}

    assert told == {version}


def holds(whole: Any, part: Any) -> bool:
    """Whether what a page shows of a manifest is in it."""
    match part:
        case dict():
            return all(name in whole and holds(whole[name], value) for name, value in part.items())
        case list():
            return len(whole) == len(part) and all(map(holds, whole, part))
        case _:
            return bool(whole == part)


def test_what_the_page_shows_of_a_deployment_is_in_it() -> None:
    [shown] = re.findall(r"```text\n(terminationGracePeriodSeconds.*?)```", OPERATIONS, re.DOTALL)
    part = yaml.safe_load(shown)

    assert holds(manifest("Deployment")["spec"]["template"]["spec"], part)
    least = Settings(_env_file=None).worker.grace + DRAIN  # type: ignore[call-arg]
    assert f"and 15 s: {least:g}." in shown and part["terminationGracePeriodSeconds"] >= least


def test_the_page_says_that_a_handler_may_take_longer_than_the_grace() -> None:
    grace = Settings(_env_file=None).worker.grace  # type: ignore[call-arg]

    said = (
        f"the default time-out of a handler, {DEFAULTS['timeout']:g} s, is longer than the default grace of {grace:g} s"
    )
    assert said in " ".join(OPERATIONS.split())


@pytest.mark.parametrize("page", ["failure-modes", "operations"])
def test_a_page_names_the_longest_pause_between_two_connections(page: str) -> None:
    pauses = re.findall(r"at most (\d+) s apart", (ROOT / "docs" / f"{page}.md").read_text())

    assert pauses == [f"{RECONNECT.longest:g}"]
