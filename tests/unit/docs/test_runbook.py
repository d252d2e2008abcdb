"""docs/runbook.md: each alert has its section and each section its alert, and what it names is there."""

import re
from pathlib import Path

import pytest

from pointsman_server.config.describe import describe
from tests.support.rules import ROOT, alerts, documented

PAGE = (ROOT / "docs" / "runbook.md").read_text()
SECTIONS = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
PARTS = ("Means", "Still works", "Look at", "Do")
OTHERS = {"POINTSMAN_SERVER"}


def anchors(path: Path) -> set[str]:
    """The fragments of a page, as GitHub makes them of its headings."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_each_alert_has_its_section_and_each_section_its_alert() -> None:
    assert set(SECTIONS) == set(alerts())


@pytest.mark.parametrize("name", SECTIONS)
def test_each_section_says_all_there_is_to_say(name: str) -> None:
    assert tuple(re.findall(r"^\*\*([\w ]+)\.\*\* ", SECTIONS[name], re.MULTILINE)) == PARTS
    assert "```console\n$ " in SECTIONS[name]


def test_every_metric_that_is_named_exists() -> None:
    # After a ^ it is what a command looks for, which may be the beginning of several.
    assert documented(re.findall(r"(?<!\^)\b(?:pointsman|grpc_server|process)_[a-z_]+[a-z]\b", PAGE))


def test_every_setting_that_is_named_exists() -> None:
    named = set(re.findall(r"\bPOINTSMAN_[A-Z_]+[A-Z]\b", PAGE))
    assert named <= {row.variable for row in describe()} | OTHERS


def test_links_lead_somewhere() -> None:
    for target, anchor in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", PAGE):
        path = ROOT / "docs" / (target or "runbook.md")
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), (target, anchor)
