"""The alarms and the dashboard ask for metrics that exist, and the documentation says what to do for each alarm."""

import re
from pathlib import Path

import yaml
from queries import DEPLOY, alerts, dashboard, dashboard_queries, names_in

from holdfast.telemetry.families import FAMILIES

ROOT = Path(__file__).parents[2]

# Of Prometheus itself, and of RabbitMQ; that these exist is seen by `make test-containers`.
OTHERS = {
    "up",
    "ALERTS",
    "rabbitmq_detailed_queue_messages_ready",
    "rabbitmq_alarms_memory_used_watermark",
    "rabbitmq_alarms_free_disk_space_watermark",
}


def series() -> set[str]:
    """Every name under which Holdfast's metrics are found in Prometheus."""
    names = {family.name for family in FAMILIES if family.kind != "histogram"}
    for family in FAMILIES:
        if family.kind == "histogram":
            names |= {f"{family.name}_{part}" for part in ("bucket", "sum", "count")}
    return names


def test_alarms_and_dashboard_ask_for_metrics_that_exist() -> None:
    asked = {name for query in [*(rule["expr"] for rule in alerts()), *dashboard_queries()] for name in names_in(query)}

    assert asked - series() == OTHERS


def test_the_dashboard_shows_every_metric() -> None:
    shown = {name.removesuffix("_bucket") for query in dashboard_queries() for name in names_in(query)}

    assert {family.name for family in FAMILIES} <= shown


def test_labels_that_are_asked_for_exist() -> None:
    labels = {label for family in FAMILIES for label in family.labels} | {
        "job",
        "instance",
        "le",
        "alertname",
        "alertstate",
    }
    queries = [*(rule["expr"] for rule in alerts()), *dashboard_queries()]

    grouped = {
        label.strip()
        for q in queries
        for group in re.findall(r"\b(?:by|on) ?\(([^)]*)\)", q)
        for label in group.split(",")
    }
    matched = {label for q in queries for label in re.findall(r"[{,]\s*(\w+)\s*(?:=~|!~|!=|=)", q)}

    assert grouped | matched <= labels


def test_the_panels_of_the_dashboard_differ_and_ask_the_provisioned_source() -> None:
    board = dashboard()
    provisioned = yaml.safe_load((DEPLOY / "grafana" / "provisioning" / "datasources" / "prometheus.yaml").read_text())
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]

    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    assert {panel["datasource"]["uid"] for panel in panels} == {provisioned["datasources"][0]["uid"]}
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels)


def test_the_page_says_of_every_alarm_what_to_do() -> None:
    section = (ROOT / "docs" / "operations.md").read_text().split("\n## Alarms\n")[1].split("\n## ")[0]

    told = re.findall(r"^\| `(\w+)` \| .+ \| .+ \|$", section, re.MULTILINE)

    assert told == [rule["alert"] for rule in alerts()]
    assert all(rule["labels"]["severity"] in ("critical", "warning") for rule in alerts())
