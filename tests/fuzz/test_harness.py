"""The harness runs as many inputs as it reports, and a finding can be run again."""

import re
from pathlib import Path

import pytest

from tests.fuzz import harness
from tests.fuzz.__main__ import main

SAMPLE = "tests.fuzz.sample_bytes"


def test_one_run_of_the_suite_is_large_enough() -> None:
    assert sum(harness.BUDGETS.values()) >= harness.TOTAL


def test_every_target_has_a_budget_and_a_test() -> None:
    here = Path(__file__).parent
    targets = {path.stem for path in here.glob("targets/*.py")} - {"__init__"}
    tested = re.findall(r'fuzz\("(\w+)"', "".join(path.read_text() for path in here.glob("test_*.py")))
    assert targets == set(harness.BUDGETS)
    assert sorted(tested) == sorted(harness.BUDGETS)


def test_bytes_that_fail_are_found_and_can_be_run_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(harness.Finding) as found:
        harness.run(SAMPLE, harness.Extent(100_000))

    text = str(found.value)
    assert "ValueError: this is the cause" in text
    assert re.search(r"the input, for SEEDS: b'.*bad input.*'", text)
    kept = re.search(rf"python -m tests\.fuzz {SAMPLE} --input (\S+)", text)
    assert kept
    with pytest.raises(ValueError, match="this is the cause"):
        main([SAMPLE, "--input", str(harness.ROOT / kept[1])])
    (harness.ROOT / kept[1]).unlink()


def test_bytes_that_do_not_fail_are_counted() -> None:
    assert harness.run(SAMPLE, harness.Extent(20, seed=1)) >= 20


def test_a_structure_that_fails_is_shown() -> None:
    def check(value: object) -> None:
        raise ValueError(value)

    with pytest.raises(ValueError, match="a/a/a/a") as found:
        harness.run("file_rows", harness.Extent(5), check=lambda rows: check(rows) if rows else None)
    assert "judged(" in "".join(found.value.__notes__)
