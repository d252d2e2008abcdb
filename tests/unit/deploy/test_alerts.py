"""The alert rules: Prometheus takes them, each says what it is, and each is tested to fire and not to fire."""

import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import debian, promql
from tests.support.rules import ROOT, RULE_FILES, RUNBOOK, alerts, documented, rules
from tests.support.tools import require

TESTS = tuple(sorted((ROOT / "tests/deploy/alerts").glob("*.yaml")))
FIRING = re.compile(r'alertname=~?"([\w|.*]+)"')


@pytest.fixture(scope="module")
def promtool() -> Path:
    found = debian.find("promtool")
    require("promtool", found, "make tools fetches it")
    assert found
    return found


def run(program: Path, *arguments: str | Path) -> None:
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_the_rules(promtool: Path) -> None:
    run(promtool, "check", "rules", *RULE_FILES)


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_they_fire_and_do_not_fire(promtool: Path, path: Path) -> None:
    run(promtool, "test", "rules", path)


def test_each_file_of_rules_has_its_tests() -> None:
    assert [path.name for path in TESTS] == [path.name for path in RULE_FILES]


@cache
def steps() -> list[dict[str, Any]]:
    """The expectations of all tests."""
    documents = (yaml.safe_load(path.read_text()) for path in TESTS)
    return [step for document in documents for test in document["tests"] for step in test["promql_expr_test"]]


def expectations(name: str) -> list[bool]:
    """Whether each expectation about an alert is that it fires."""
    found = []
    for step in steps():
        asked = FIRING.search(step["expr"])
        fires = any(f'alertname="{name}"' in sample["labels"] for sample in step.get("exp_samples", ()))
        if fires or (asked and re.fullmatch(asked[1], name)):
            found.append(fires)
    return found


@pytest.mark.parametrize("name", alerts())
def test_each_alert_is_expected_to_fire_and_not_to(name: str) -> None:
    assert set(expectations(name)) == {True, False}


@pytest.mark.parametrize("rule", alerts().values(), ids=lambda rule: rule["alert"])
def test_each_alert_says_what_it_is(rule: dict[str, Any]) -> None:
    name, annotations = rule["alert"], rule["annotations"]
    assert name.startswith("Pointsman")
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert set(annotations) == {"summary", "description", "runbook_url"}
    assert annotations["runbook_url"] == f"{RUNBOOK}#{name.lower()}"
    assert all(re.fullmatch(r"[A-Z{].*\.", annotations[text]) for text in ("summary", "description"))
    assert "{{" not in annotations["summary"]


def test_no_name_is_given_twice() -> None:
    names = [rule.get("alert") or rule["record"] for rule in rules()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.get("alert") or rule["record"])
def test_every_metric_of_a_rule_is_documented(rule: dict[str, Any]) -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    assert documented(promql.metrics(rule["expr"]) - recorded - {"up"})
