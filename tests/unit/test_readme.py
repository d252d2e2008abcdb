"""The generated parts of README.md are those of the code, and a stale one is noticed."""

import re
from pathlib import Path

import pytest

from pointsman_server.config.settings import describe
from pointsman_server.rpc import statuses
from pointsman_server.telemetry.metrics import Metrics
from tests.support import readme

README = readme.README.read_text()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    path = tmp_path / "README.md"
    path.write_text(README)
    return path


def stale(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def test_the_readme_is_up_to_date() -> None:
    readme.check(README)


@pytest.mark.parametrize(
    ("part", "before", "after"),
    [
        ("settings", "| `POINTSMAN_WORKERS` | `1` |", "| `POINTSMAN_WORKERS` | `2` |"),
        ("settings", "| `POINTSMAN_WORKERS` |", "| `POINTSMAN_PROCESSES` |"),
        ("errors", "| `NOT_FOUND` | `ROUTE_NOT_FOUND` |", "| `UNKNOWN` | `ROUTE_NOT_FOUND` |"),
        ("metrics", "`pointsman_relay_leader`", "`pointsman_relay_follower`"),
    ],
)
def test_a_stale_table_is_noticed_named_and_mended(
    copy: Path, capsys: pytest.CaptureFixture[str], part: str, before: str, after: str
) -> None:
    stale(copy, before, after)

    assert readme.main(["--check"], copy) == 1
    assert capsys.readouterr().err == f"README.md is out of date ({part}): run `make docs`\n"

    assert readme.main(["--write"], copy) == 0
    assert readme.main(["--check"], copy) == 0
    assert copy.read_text() == README


@pytest.mark.parametrize("option", ["--check", "--write"])
@pytest.mark.parametrize("part", readme.PARTS)
def test_a_part_without_its_markers_is_noticed(
    copy: Path, capsys: pytest.CaptureFixture[str], option: str, part: str
) -> None:
    stale(copy, f"<!-- /{part} -->", "")

    assert readme.main([option], copy) == 1
    assert f"<!-- {part} --> and <!-- /{part} -->" in capsys.readouterr().err


def test_every_setting_error_and_metric_has_its_row() -> None:
    names = set(re.findall(r"^\| `(\w+)`", readme.metrics_table(), re.MULTILINE))
    exported = set(re.findall(r"^# HELP (\w+)", Metrics().render()[0].decode(), re.MULTILINE))
    assert names == {name for name in exported if not name.endswith("_created")}

    assert all(f"| `{row.variable}` |" in README for row in describe())
    reasons = {kind.reason for kind in statuses.CODES} | {"INTERNAL"}
    assert reasons == set(readme.WHAT_TO_DO)
    assert all(f"| `{reason}` |" in readme.errors_table() for reason in reasons)


def test_no_cell_breaks_its_table() -> None:
    for render in readme.PARTS.values():
        header, *rows = render().splitlines()
        assert {row.count("|") for row in rows} == {header.count("|")}
