"""What can be mutated, and by which tests that is noticed."""

import pytest

from tests.mutants.__main__ import ROOT, SUITES, options


def test_all_rooms_are_mutated_unless_some_are_named() -> None:
    assert options([]).targets == list(SUITES)
    assert options(["xds/", "pointsman/channels/routes.py"]).targets == ["xds", "pointsman/channels/routes.py"]


@pytest.mark.parametrize("target", ["nothing", "cli", "xds/nothing.py", "pointsman/nothing", "xdsx"])
def test_what_has_no_tests_that_would_notice_is_refused(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        options([target])
    assert f"{target} is neither one of these folders nor in one" in capsys.readouterr().err


def test_every_room_is_tested_by_tests_that_there_are() -> None:
    assert [path for suites in SUITES.values() for path in suites if not (ROOT / path).exists()] == []
