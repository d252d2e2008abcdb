"""docs/security.md: each line of its table of abuse names tests, and there are such tests; its links lead somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "security.md").read_text()
HEAD = "| input | answer | tests |\n|---|---|---|\n"


def rows() -> list[str]:
    _, _, table = PAGE.partition(HEAD)
    return table.partition("\n\n")[0].strip().splitlines()


def named(row: str) -> list[tuple[str, str]]:
    """Give the file and the name of each test of a row."""
    words = re.findall(r"`(tests/\S+\.py|test_\w+)`", row.rpartition("|")[0].rpartition(" | ")[2])
    file, found = "", []
    for word in words:
        if word.startswith("tests/"):
            file = word
        else:
            found.append((file, word))
    return found


def test_there_is_a_row_for_each_promise() -> None:
    assert len(rows()) >= 17


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[2:42])
def test_the_tests_of_a_row_exist(row: str) -> None:
    tests = named(row)

    assert tests, "a row without a test"
    for file, name in tests:
        assert re.search(rf"^\s*(async )?def {name}\(", (ROOT / file).read_text(), re.MULTILINE), f"{file}::{name}"


def test_every_problem_of_a_credential_is_explained() -> None:
    from tests.fuzz.callers import PROBLEMS

    table = PAGE.partition("| `problem` |")[2].partition("\n\n")[0]
    first_cells = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    assert set(re.findall(r"`([a-z ]+)`", " ".join(first_cells))) == PROBLEMS


@pytest.mark.parametrize("page", ["docs/security.md", "SECURITY.md"])
def test_links_lead_to_files(page: str) -> None:
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#:]+)[^)]*\)", path.read_text()):
        assert (path.parent / target).exists(), target
