"""The dashboards, as Grafana loads them: nothing overlaps, nothing is unnamed, and each panel leads to the runbook."""

import itertools
import re
from typing import Any

import pytest

from tests.support import promql
from tests.support.rules import RUNBOOK, alerts, dashboards, documented, panels, rules

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
VARIABLES = {"datasource", "namespace", "instance", "runbook"}
BUILT_IN = {"__rate_interval"}
GRID_WIDTH = 24
RECORDED = {rule["record"] for rule in rules() if "record" in rule}

every_dashboard = pytest.mark.parametrize("dashboard", dashboards().values(), ids=dashboards())
every_panel = pytest.mark.parametrize(
    "panel",
    [panel for dashboard in dashboards().values() for panel in panels(dashboard)],
    ids=[f"{name}: {panel['title']}" for name, dashboard in dashboards().items() for panel in panels(dashboard)],
)


def cells(panel: dict[str, Any]) -> set[tuple[int, int]]:
    place = panel["gridPos"]
    columns, rows = range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
    return set(itertools.product(columns, rows))


def variables_in(text: str) -> set[str]:
    return {name or braced for name, braced in re.findall(r"\$(\w+)|\$\{(\w+)\}", text)}


def test_there_are_three() -> None:
    assert set(dashboards()) == {"overview", "changes", "resources"}
    uids = [dashboard["uid"] for dashboard in dashboards().values()]
    assert uids == [f"pointsman-{name}" for name in dashboards()]


@every_dashboard
def test_each_panel_has_an_id_and_a_place_of_its_own(dashboard: dict[str, Any]) -> None:
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    for one, other in itertools.combinations(dashboard["panels"], 2):
        assert not cells(one) & cells(other), (one["title"], other["title"])
    assert all(column < GRID_WIDTH for panel in dashboard["panels"] for column, _ in cells(panel))


@every_dashboard
def test_panels_are_told_apart_by_their_titles(dashboard: dict[str, Any]) -> None:
    titles = [panel["title"] for panel in panels(dashboard)]
    assert len(titles) == len(set(titles))


@every_dashboard
def test_each_dashboard_is_found_and_says_what_it_is_for(dashboard: dict[str, Any]) -> None:
    assert dashboard["title"].startswith("Pointsman: ")
    assert dashboard["description"].endswith(".")
    assert dashboard["tags"] == ["pointsman"]
    assert {variable["name"] for variable in dashboard["templating"]["list"]} == VARIABLES
    (runbook,) = [variable for variable in dashboard["templating"]["list"] if variable["name"] == "runbook"]
    assert runbook["query"] == RUNBOOK


@every_panel
def test_each_panel_says_what_it_shows_and_in_which_unit(panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"][0]["value"] is None
    assert panel["targets"]
    assert all(target["datasource"] == DATASOURCE for target in (panel, *panel["targets"]))
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


@every_panel
def test_each_expression_is_of_the_servers_that_were_chosen(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        assert variables_in(target["expr"]) <= VARIABLES | BUILT_IN
        assert 'namespace=~"$namespace"' in target["expr"]
        assert re.search(r'instance=~"\$instance"|namespace:pointsman_', target["expr"])


@every_panel
def test_every_metric_of_a_panel_is_documented(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        assert documented(promql.metrics(target["expr"]) - RECORDED)


@every_panel
def test_a_heat_map_reads_the_buckets_of_a_histogram(panel: dict[str, Any]) -> None:
    if panel["type"] != "heatmap":
        return
    (target,) = panel["targets"]
    assert target["format"] == "heatmap"
    assert target["legendFormat"] == "{{le}}"
    assert "by (le)" in target["expr"]
    assert panel["options"]["calculate"] is False


def test_panels_lead_to_the_section_of_each_alert() -> None:
    links = [
        link["url"] for dashboard in dashboards().values() for panel in panels(dashboard) for link in panel["links"]
    ]
    assert set(links) == {f"${{runbook}}#{name.lower()}" for name in alerts()}
