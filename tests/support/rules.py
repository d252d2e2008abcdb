"""The alert rules and dashboards that we hand to operators."""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy" / "helm" / "pointsman"
RULE_FILES = tuple(sorted((CHART / "alerts").glob("*.yaml")))
DASHBOARD_FILES = tuple(sorted((CHART / "dashboards").glob("*.json")))
RUNBOOK = "docs/runbook.md"


@cache
def rules() -> Sequence[dict[str, Any]]:
    """Every rule of every file, those that record included."""
    documents = (yaml.safe_load(path.read_text()) for path in RULE_FILES)
    return [rule for document in documents for group in document["groups"] for rule in group["rules"]]


def alerts() -> Mapping[str, dict[str, Any]]:
    """The rules that alert, by name."""
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def dashboards() -> Mapping[str, dict[str, Any]]:
    """The dashboards, by the name of their file."""
    return {path.stem: json.loads(path.read_text()) for path in DASHBOARD_FILES}


def panels(dashboard: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The panels of a dashboard that show something: all but the rows."""
    return (panel for panel in dashboard["panels"] if panel["type"] != "row")
