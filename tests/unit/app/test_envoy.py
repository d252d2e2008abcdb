"""app.envoy: what a process hands to the Envoy that it becomes, and what is left when it cannot."""

import json
import os
import signal
import tempfile
from pathlib import Path
from typing import Any

import pytest

from pointsman_server.app import envoy
from pointsman_server.app.listening import Addresses, ListenError
from pointsman_server.config.settings import Settings
from pointsman_server.rpc.transport.certificates import BadCertificates
from pointsman_server.rpc.transport.envoy.process import Installation
from pointsman_server.runtime import private_directory

INSTALLATION = Installation(Path("/bin/envoy"), Path("/lib/_pyvoy.so"), Path("/lib/libpython.so"))


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(Installation, "find", lambda: INSTALLATION)
    # The directories of pytest are too long for a socket.
    monkeypatch.setattr(private_directory, "LONGEST_SOCKET_PATH", 4096)
    return tmp_path


@pytest.fixture
def became(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Replace what never returns by what fails, and keep what it was given."""
    given: list[Any] = []

    def execve(path: str, command: list[str], environ: dict[str, str]) -> None:
        configuration = Path(command[command.index("--config-path") + 1])
        given.append((path, environ, json.loads(configuration.read_text()), configuration.parent))
        raise OSError("not executable")

    monkeypatch.setattr(os, "execve", execve)
    monkeypatch.setattr(signal, "pthread_sigmask", lambda how, names: given.append((how, names)))
    return given


def test_it_becomes_envoy_with_signals_blocked(became: list[Any]) -> None:
    with pytest.raises(OSError, match="not executable"):
        envoy.become(Settings(listen="127.0.0.1:0"))

    blocked, (path, environ, configuration, directory) = became
    assert blocked == (signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGUSR2})
    assert path == "/bin/envoy"
    assert environ[envoy.DIRECTORY] == str(directory)
    assert environ["POINTSMAN_LISTEN"] == "127.0.0.1:0"
    assert configuration["static_resources"]["listeners"]


def test_nothing_is_left_when_it_cannot(became: list[Any], temporary: Path) -> None:
    with pytest.raises(OSError, match="not executable"):
        envoy.become(Settings(listen="127.0.0.1:0"))

    assert list(temporary.iterdir()) == []


def test_nothing_is_left_of_broken_certificates(became: list[Any], temporary: Path) -> None:
    files = {"tls_cert_file": "/absent.crt", "tls_key_file": "/absent.key"}
    with pytest.raises(BadCertificates):
        envoy.become(Settings(listen="127.0.0.1:0", **files))

    assert became == []
    assert list(temporary.iterdir()) == []


def test_a_taken_address_is_named_before_anything_is_made(
    monkeypatch: pytest.MonkeyPatch, became: list[Any], temporary: Path
) -> None:
    def taken(_settings: Settings) -> Addresses:
        raise ListenError("taken")

    monkeypatch.setattr(envoy, "bindable", taken)
    with pytest.raises(ListenError):
        envoy.become(Settings())

    assert became == []
    assert list(temporary.iterdir()) == []


def test_a_tmpdir_that_is_too_long_is_refused_before_anything_is_made(
    monkeypatch: pytest.MonkeyPatch, became: list[Any], temporary: Path
) -> None:
    monkeypatch.setattr(private_directory, "LONGEST_SOCKET_PATH", len(str(temporary)))
    with pytest.raises(private_directory.UnusableDirectory, match="set TMPDIR"):
        envoy.become(Settings())

    assert became == []
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(("log_format", "is_json"), [("json", True), ("console", False), ("auto", True)])
def test_envoy_logs_as_the_server_does(log_format: Any, is_json: bool) -> None:
    assert envoy.logs_json(Settings(log_format=log_format)) == is_json


@pytest.mark.parametrize(
    ("files", "tls"),
    [
        ({}, ""),
        ({"tls_cert_file": "c", "tls_key_file": "k"}, "server"),
        ({"tls_cert_file": "c", "tls_key_file": "k", "tls_client_ca_file": "a"}, "mutual"),
    ],
)
def test_client_certificates_are_demanded_with_a_ca_alone(files: dict[str, Any], tls: str) -> None:
    assert envoy.tls_of(Settings(**files)) == tls
