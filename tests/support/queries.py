"""What the dashboard and the alarms ask Prometheus."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
_STRINGS, _LABELS = (
    re.compile(r'"(?:\\.|[^"\\])*"'),
    re.compile(r"\b(?:by|on|without|group_left)\s*\([^)]*\)|\{[^}]*\}"),
)
_DURATION, _NAME = re.compile(r"\[[^\]]*\]"), re.compile(r"\b[a-zA-Z_:][a-zA-Z0-9_:]*(?!\s*\()\b")
_WORDS = {"and", "or", "unless", "on", "by", "without", "offset"}


def rules() -> list[dict[str, Any]]:
    """Every rule, those that record included."""
    found = yaml.safe_load((DEPLOY / "prometheus" / "holdfast.rules.yml").read_text())
    return [rule for group in found["groups"] for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    """Every alert rule."""
    return [rule for rule in rules() if "alert" in rule]


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DEPLOY / "grafana" / "dashboards" / "holdfast.json").read_text())
    return found


def dashboard_queries() -> Iterator[str]:
    """Every expression of the dashboard, with its variables filled in."""
    board = dashboard()
    asked = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    asked += [annotation["expr"] for annotation in board["annotations"]["list"]]
    for query in asked:
        yield re.sub(r"\$(?:vhost|instance|queue)", ".+", query.replace("$__rate_interval", "1m"))


def names_in(query: str) -> set[str]:
    """The metrics an expression names."""
    bare = _DURATION.sub("", _LABELS.sub("", _STRINGS.sub('""', query)))
    return {name for name in _NAME.findall(bare) if name not in _WORDS}
