"""The programs in Go and Node.js that docs/xds.md shows; its commands and Python run in tests/e2e/test_pages.py."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from pointsman import Client
from tests.e2e.xds.conftest import Service, printed
from tests.support.processes import clean_environ
from tests.support.tools import program, require
from tests.support.xds_clients import programs

PAGE = Path(__file__).parents[3] / "docs" / "xds.md"
BUILD_SECONDS = 300
CALL_SECONDS = 60
pytestmark = pytest.mark.engines


def shown(language: str) -> str:
    """Return the program of the page in a language."""
    [_, found] = PAGE.read_text().split(f"```{language}\n")
    return found.partition("```")[0]


@pytest.fixture(scope="module")
def greeter(service: Service) -> Service:
    """The server, and the route of the page, which leads to the server itself."""
    with Client(service.api, timeout=30) as client:
        client.create("team-a/greeter/prod/v1", f"http://{service.api}")
    return service


def called(command: list[str], environ: dict[str, str]) -> str:
    done = subprocess.run(
        command,
        env=clean_environ() | environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=CALL_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.go
def test_the_program_in_go_calls(greeter: Service, tmp_path: Path) -> None:
    go = require("go", program("go"), programs.HINT)
    for name in ("go.mod", "go.sum"):
        shutil.copy(programs.SOURCES / "go" / name, tmp_path)
    (tmp_path / "main.go").write_text(shown("go"))
    build = [str(go), "build", "-buildvcs=false", "-o", "client", "."]
    environ = os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-mod=mod", "GOPROXY": "off"}
    built = subprocess.run(
        build, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False
    )
    assert built.returncode == 0, built.stderr

    assert called([str(tmp_path / "client")], printed("go", tmp_path / "b.json", "--xds", greeter.xds)) == (
        "SERVING <nil>\n"
    )


@pytest.mark.node
def test_the_program_in_node_calls(greeter: Service, tmp_path: Path) -> None:
    [node, _], environ = programs.node_probe()
    (tmp_path / "client.js").write_text(shown("javascript"))

    environ |= printed("node", tmp_path / "b.json", "--xds", greeter.xds)
    assert called([node, str(tmp_path / "client.js")], environ) == "<Buffer 08 01>\n"
