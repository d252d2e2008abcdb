"""Settings that ask for more than the machine has, and access that lets nobody or everybody in."""

import pytest

from pointsman_server.config.environment import load
from pointsman_server.diagnosis.finding import Severity
from pointsman_server.diagnosis.setup import judge_machine, judge_policy
from pointsman_server.runtime.machine import Machine
from tests.support.settings import DATABASE_URL

BIG = Machine(64, 256 << 30, 1_000_000)


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        (Machine(2, 256 << 30, 1_000_000), "POINTSMAN_WORKERS is 4, and there are 2 CPUs"),
        (Machine(64, 2 << 30, 1_000_000), "4 workers may take 4096 MiB"),
        (Machine(64, 256 << 30, 1024), "POINTSMAN_MAX_CONNECTIONS is 20000, and the process may have 1024"),
    ],
)
def test_a_setting_beyond_the_machine_is_named(machine: Machine, words: str) -> None:
    settings = load(
        {"DATABASE_URL": DATABASE_URL}, {"workers": 4, "max_heap_megabytes": 774, "max_connections": 20_000}
    )

    (found,) = judge_machine(settings, machine)

    assert found.severity is Severity.WARNING
    assert words in found.what
    assert found.remedy


def test_a_machine_that_has_enough_is_ok() -> None:
    (found,) = judge_machine(load({"DATABASE_URL": DATABASE_URL}, {}), BIG)
    assert found.severity is Severity.OK


@pytest.mark.parametrize(
    ("problems", "configured", "authenticates", "severity", "words"),
    [
        ("", False, False, Severity.WARNING, "nobody is authenticated"),
        ("policy.toml grants nothing to anybody", True, True, Severity.ERROR, "grants nothing"),
        ("", True, True, Severity.OK, "3 rules"),
        ("", False, True, Severity.OK, "no file"),
    ],
)
def test_policy(problems: str, configured: bool, authenticates: bool, severity: Severity, words: str) -> None:
    (found,) = judge_policy(problems, 3, configured=configured, authenticates=authenticates)
    assert found.severity is severity
    assert words in found.what
