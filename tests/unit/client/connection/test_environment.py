"""environment: the variables that a client and the command share."""

from pathlib import Path
from typing import Any

import pytest

from pointsman import AsyncClient, Client
from pointsman.connection.environment import arguments
from tests.support.fake_route_service import FakeServer

EVERYTHING = {
    "POINTSMAN_SERVER": "pointsman.internal:443",
    "POINTSMAN_TOKEN": "t-1",
    "POINTSMAN_TLS": "true",
    "POINTSMAN_CA_FILE": "ca.pem",
    "POINTSMAN_CERT_FILE": "cert.pem",
    "POINTSMAN_KEY_FILE": "key.pem",
    "POINTSMAN_TIMEOUT": "2.5",
}


def test_every_variable_is_an_argument() -> None:
    assert arguments(EVERYTHING, {}) == {
        "target": "pointsman.internal:443",
        "token": "t-1",
        "tls": True,
        "ca_file": "ca.pem",
        "cert_file": "cert.pem",
        "key_file": "key.pem",
        "timeout": 2.5,
    }


def test_without_any_it_is_the_server_of_this_machine() -> None:
    assert arguments({}, {}) == {"target": "localhost:50051"}
    assert arguments(dict.fromkeys(EVERYTHING, ""), {}) == {"target": "localhost:50051"}


def test_an_argument_wins_over_all_that_is_said_of_the_same_matter() -> None:
    given = arguments(
        EVERYTHING | {"POINTSMAN_TOKEN_FILE": "token"}, {"token_file": "mine", "tls": False, "target": "x:1"}
    )
    assert given == {"target": "x:1", "token_file": "mine", "tls": False, "timeout": 2.5}


def test_a_token_and_a_file_contradict_each_other() -> None:
    with pytest.raises(ValueError, match="POINTSMAN_TOKEN and POINTSMAN_TOKEN_FILE"):
        arguments({"POINTSMAN_TOKEN": "t-1", "POINTSMAN_TOKEN_FILE": "token"}, {})


@pytest.mark.parametrize(("text", "tls"), [("1", True), ("Yes", True), ("on", True), ("0", False), ("FALSE", False)])
def test_a_switch_is_written_as_people_do(text: str, tls: bool) -> None:
    assert arguments({"POINTSMAN_TLS": text}, {})["tls"] is tls


@pytest.mark.parametrize(("name", "text"), [("POINTSMAN_TLS", "maybe"), ("POINTSMAN_TIMEOUT", "soon")])
def test_what_cannot_be_read_is_named(name: str, text: str) -> None:
    with pytest.raises(ValueError, match=f"{name} .*{text}"):
        arguments({name: text}, {})


def test_a_client_is_made_of_them(server: FakeServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    server.add("a/b/c/d", "https://x.internal")
    (tmp_path / "token").write_text("t-1\n")
    monkeypatch.setenv("POINTSMAN_SERVER", server.target)
    monkeypatch.setenv("POINTSMAN_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("POINTSMAN_TIMEOUT", "60")
    with Client.from_environment(max_attempts=1) as client:
        client.resolve("a/b/c/d")
    assert server.calls[0].metadata["authorization"] == "Bearer t-1"
    assert server.calls[0].seconds_left == pytest.approx(60, abs=2)


async def test_an_asyncio_client_too(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.add("a/b/c/d", "https://x.internal")
    monkeypatch.setenv("POINTSMAN_SERVER", server.target)
    async with AsyncClient.from_environment() as client:
        assert (await client.resolve("a/b/c/d")).url == "https://x.internal"


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_contradictions_are_found_at_once(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POINTSMAN_TLS", "false")
    monkeypatch.setenv("POINTSMAN_CA_FILE", "ca.pem")
    with pytest.raises(ValueError, match="switched off"):
        kind.from_environment()
