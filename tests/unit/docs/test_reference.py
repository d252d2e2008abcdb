"""The tables of docs/reference are those of the code, and a stale one is noticed."""

import re
from pathlib import Path
from shutil import copytree

import pytest

from pointsman_server.config.describe import describe
from pointsman_server.rpc import statuses
from pointsman_server.telemetry.metrics import Metrics
from tests.support import reference


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    return copytree(reference.REFERENCE, tmp_path / "reference")


def stale(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def test_the_pages_are_up_to_date() -> None:
    assert reference.main(["--check"]) == 0


def test_every_page_of_the_folder_has_a_table() -> None:
    assert {path.stem for path in reference.REFERENCE.iterdir()} == set(reference.TABLES)


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("settings", "| `POINTSMAN_WORKERS` | `1` |", "| `POINTSMAN_WORKERS` | `2` |"),
        ("settings", "| `POINTSMAN_WORKERS` |", "| `POINTSMAN_PROCESSES` |"),
        ("errors", "| `NOT_FOUND` | `ROUTE_NOT_FOUND` |", "| `UNKNOWN` | `ROUTE_NOT_FOUND` |"),
        ("metrics", "`pointsman_relay_leader`", "`pointsman_relay_follower`"),
    ],
)
def test_a_stale_table_is_noticed_named_and_mended(
    pages: Path, capsys: pytest.CaptureFixture[str], name: str, before: str, after: str
) -> None:
    page = pages / f"{name}.md"
    good = page.read_text()
    stale(page, before, after)

    assert reference.main(["--check"], pages) == 1
    assert capsys.readouterr().err == f"docs/reference/{name}.md is out of date: run `make docs`\n"

    assert reference.main(["--write"], pages) == 0
    assert reference.main(["--check"], pages) == 0
    assert page.read_text() == good


@pytest.mark.parametrize("option", ["--check", "--write"])
@pytest.mark.parametrize("name", reference.TABLES)
def test_a_table_without_its_markers_is_noticed(
    pages: Path, capsys: pytest.CaptureFixture[str], option: str, name: str
) -> None:
    stale(pages / f"{name}.md", f"<!-- /{name} -->", "")

    assert reference.main([option], pages) == 1
    assert f"<!-- {name} --> and <!-- /{name} -->" in capsys.readouterr().err


def test_every_setting_error_and_metric_has_its_row() -> None:
    names = set(re.findall(r"^\| `(\w+)`", reference.metrics_table(), re.MULTILINE))
    exported = set(re.findall(r"^# HELP (\w+)", Metrics().render()[0].decode(), re.MULTILINE))
    assert names == {name for name in exported if not name.endswith("_created")}

    settings = (reference.REFERENCE / "settings.md").read_text()
    assert all(f"| `{row.variable}` |" in settings for row in describe())
    reasons = {kind.reason for kind in statuses.CODES} | {"INTERNAL"}
    assert reasons == set(reference.WHAT_TO_DO)
    assert all(f"| `{reason}` |" in reference.errors_table() for reason in reasons)


def test_no_cell_breaks_its_table() -> None:
    for render in reference.TABLES.values():
        header, *rows = render().splitlines()
        assert {row.count("|") for row in rows} == {header.count("|")}
