"""The no-op of grpc-go is built once for each version of its source."""

import subprocess
from pathlib import Path

import pytest

from tests.bench import grpc_go
from tests.support import tools


def test_another_source_is_another_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("main.go", "go.mod", "go.sum"):
        (tmp_path / name).write_text("google.golang.org/grpc v1.2.3")
    monkeypatch.setattr(grpc_go, "SOURCE", tmp_path)
    first = grpc_go.program()
    assert grpc_go.program() == first
    (tmp_path / "main.go").write_text("another")
    assert grpc_go.program() != first
    assert grpc_go.version() == "1.2.3"


def test_a_build_that_fails_leaves_no_program_and_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tools, "CACHE", tmp_path)
    monkeypatch.setattr(tools, "provide", lambda _: Path("go"))
    monkeypatch.setattr(
        grpc_go.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 1, "", "no such module")
    )
    assert grpc_go.build() == "the no-op of grpc-go is not built: no such module"
    assert not grpc_go.program().exists()
