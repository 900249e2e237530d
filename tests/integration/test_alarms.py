"""The alarms and the dashboard, judged by Prometheus' own tool."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from queries import DEPLOY, alerts, dashboard_queries

from holdfast.testing.servers.choose import install
from holdfast.testing.servers.process import is_root


@pytest.fixture(scope="module")
def promtool() -> str:
    """Prometheus' tool: the one installed, or Debian's."""
    found = shutil.which("promtool")
    if found is None:
        assert is_root() and shutil.which("apt-get"), "promtool is needed: install Debian's prometheus, or Prometheus"
        install("prometheus")
        found = shutil.which("promtool")
    assert found
    return found


def run(*words: str | Path) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_configuration_and_the_rules_are_valid(promtool: str) -> None:
    run(promtool, "check", "config", "--syntax-only", DEPLOY / "prometheus" / "prometheus.yml")
    run(promtool, "check", "rules", "--lint=all", "--lint-fatal", DEPLOY / "prometheus" / "holdfast.rules.yml")


def test_each_alarm_is_raised_when_it_should_be_and_not_before(promtool: str) -> None:
    files = sorted((DEPLOY / "prometheus").glob("*.test.yml"))

    assert run(promtool, "test", "rules", *files).count("SUCCESS") == len(files) == 2
    tried = [
        rule["alertname"]
        for file in files
        for test in yaml.safe_load(file.read_text())["tests"]
        for rule in test.get("alert_rule_test", [])
    ]
    assert {rule["alert"] for rule in alerts()} == set(tried)


def test_what_the_dashboard_asks_can_be_read(promtool: str, tmp_path: Path) -> None:
    rules = [{"record": f"panel:{number}", "expr": query} for number, query in enumerate(dashboard_queries())]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))

    run(promtool, "check", "rules", tmp_path / "rules.yml")
