"""The alert rules and dashboards that we hand to operators."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy" / "helm" / "pointsman"
RULE_FILES = tuple(sorted((CHART / "alerts").glob("*.yaml")))
DASHBOARD_FILES = tuple(sorted((CHART / "dashboards").glob("*.json")))
RUNBOOK = "docs/runbook.md"
METRICS = ROOT / "docs" / "reference" / "metrics.md"
OF_HISTOGRAMS = re.compile(r"_(bucket|count|sum)$")


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


def documented(names: Iterable[str]) -> bool:
    """Whether each of these metrics, or the histogram that it is of, has a row in docs/reference/metrics.md."""
    rows = set(re.findall(r"^\| `(\w+)`", METRICS.read_text(), re.MULTILINE))
    unknown = {name for name in names if name not in rows and OF_HISTOGRAMS.sub("", name) not in rows}
    assert not unknown, unknown
    return True
