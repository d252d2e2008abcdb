"""A fake server for each test, the two clients, and the command line, all on the loopback interface."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pointsman import AsyncClient, Client
from pointsman.cli.app import app
from tests.support.fake_route_service import FakeServer, serving

Run = Callable[..., Any]


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with serving(FakeServer()) as servicer:
        yield servicer


@pytest.fixture
def client(server: FakeServer) -> Iterator[Client]:
    with Client(server.target) as client:
        yield client


@pytest.fixture
async def async_client(server: FakeServer) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(server.target) as client:
        yield client


@pytest.fixture
def run(server: FakeServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run ``pointsman`` with arguments, against the fake server, in an empty directory."""
    monkeypatch.setenv("POINTSMAN_SERVER", server.target)
    for name in ("TOKEN", "TOKEN_FILE", "TLS", "CA_FILE", "CERT_FILE", "KEY_FILE", "TIMEOUT"):
        monkeypatch.delenv(f"POINTSMAN_{name}", raising=False)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, **options: Any) -> Any:
        return CliRunner().invoke(app, list(arguments), **options)

    return run
