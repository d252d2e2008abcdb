"""The limits of a container come before those of the machine."""

from pathlib import Path

import pytest

from pointsman_server.runtime import machine


@pytest.mark.parametrize(
    ("text", "expected"), [("100000 100000", 1), ("150000 100000", 2), ("5000 100000", 1), ("max 100000", None)]
)
def test_cpus(tmp_path: Path, text: str, expected: int | None) -> None:
    (limit := tmp_path / "cpu.max").write_text(text)
    every = machine._cpus(tmp_path / "none")
    assert machine._cpus(limit) == (min(expected, every) if expected else every)


def test_memory(tmp_path: Path) -> None:
    physical = machine._memory((tmp_path / "none",))
    (limit := tmp_path / "memory.max").write_text("1048576\n")
    assert machine._memory((tmp_path / "none", limit)) == 1 << 20
    limit.write_text("max\n")
    assert machine._memory((limit,)) == physical
    limit.write_text("9223372036854771712\n")
    assert machine._memory((limit,)) == physical


def test_this_machine_is_measured() -> None:
    found = machine.measure()
    assert found.cpus >= 1
    assert found.memory > 1 << 20
    assert found.descriptors > 0
