"""The alarms and the dashboard ask for metrics that exist, and the documentation says what to do for each alarm."""

import re
from pathlib import Path

from queries import alerts, dashboard, dashboard_queries, names_in, rules

from holdfast.broker import ladder
from holdfast.telemetry.families import FAMILIES

ROOT = Path(__file__).parents[2]

# Of Prometheus itself, and of RabbitMQ; that these exist is seen by `make test-containers`.
OTHERS = {
    "up",
    "ALERTS",
    "rabbitmq_detailed_queue_messages",
    "rabbitmq_detailed_queue_messages_ready",
    "rabbitmq_alarms_memory_used_watermark",
    "rabbitmq_alarms_free_disk_space_watermark",
}


def series() -> set[str]:
    """Every name under which Holdfast's metrics, and what the rules record, are found in Prometheus."""
    names = {family.name for family in FAMILIES if family.kind != "histogram"}
    names |= {rule["record"] for rule in rules() if "record" in rule}
    for family in FAMILIES:
        if family.kind == "histogram":
            names |= {f"{family.name}_{part}" for part in ("bucket", "sum", "count")}
    return names


def test_alarms_and_dashboard_ask_for_metrics_that_exist() -> None:
    asked = {name for query in [*(rule["expr"] for rule in rules()), *dashboard_queries()] for name in names_in(query)}

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
    queries = [*(rule["expr"] for rule in rules()), *dashboard_queries()]

    grouped = {
        label.strip()
        for q in queries
        for group in re.findall(r"\b(?:by|on|group_left) ?\(([^)]*)\)", q)
        for label in group.split(",")
    }
    matched = {label for q in queries for label in re.findall(r"[{,]\s*(\w+)\s*(?:=~|!~|!=|=)", q)}

    assert grouped | matched <= labels


def test_the_panels_of_the_dashboard_differ_and_ask_the_source_that_is_chosen() -> None:
    board = dashboard()
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]

    asking = [*panels, *(target for panel in panels for target in panel["targets"]), *board["annotations"]["list"]]
    asking += [variable for variable in variables.values() if variable["type"] == "query"]

    assert list(variables) == ["datasource", "vhost", "instance", "queue"]
    assert (variables["datasource"]["type"], variables["datasource"]["query"]) == ("datasource", "prometheus")
    assert {asked["datasource"]["uid"] for asked in asking} == {"${datasource}"}
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels)


def test_each_panel_shows_the_virtual_host_that_is_chosen() -> None:
    queries = [target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", [])]

    asked = {match for q in queries for match in re.findall(r"\b(holdfast|rabbitmq)_\w+(\{\w+=~\"\$\w+\")?", q)}

    assert asked == {("holdfast", '{instance=~"$instance"'), ("rabbitmq", '{vhost=~"$vhost"')}


def test_what_waits_for_its_next_attempt_is_in_the_levels_of_the_ladder() -> None:
    patterns = {p for q in dashboard_queries() for p in re.findall(r'queue=~"(holdfast[^"]+)"', q)}

    [pattern] = (pattern.replace("\\\\", "\\") for pattern in patterns)

    assert re.fullmatch(pattern, ladder.level_name(0)) and re.fullmatch(pattern, "holdfast.delay.00")


def test_each_alarm_links_to_its_runbook_and_each_runbook_has_its_alarm() -> None:
    links = {rule["alert"]: rule["annotations"]["runbook_url"].partition("#") for rule in alerts()}
    headings = {
        page: re.findall(r"^## (\w+)$", (ROOT / page).read_text(), re.MULTILINE) for page, _, _ in links.values()
    }

    assert headings == {"docs/runbooks.md": list(links)}
    assert all(anchor == alert.lower() for alert, (_, _, anchor) in links.items())  # as a heading's anchor is made
    assert all(rule["labels"]["severity"] in ("critical", "warning") for rule in alerts())


def test_each_runbook_says_where_to_look_and_what_to_do() -> None:
    sections = (ROOT / "docs" / "runbooks.md").read_text().split("\n## ")[1:]

    assert [re.findall(r"^- (\w+): ", section, re.MULTILINE) for section in sections] == [["Look", "Do"]] * len(
        alerts()
    )


def test_links_of_the_runbooks_lead_to_pages_and_sections() -> None:
    links = re.findall(r"\]\(([\w.-]*)#?([\w-]*)\)", (ROOT / "docs" / "runbooks.md").read_text())

    for page, anchor in links:
        text = (ROOT / "docs" / (page or "runbooks.md")).read_text()
        anchors = [line.lstrip("# ").lower().replace(" ", "-") for line in text.splitlines() if line.startswith("#")]
        assert not anchor or anchor in anchors
