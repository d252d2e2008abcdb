"""How ``pointsman-server serve`` says that it cannot start: the same on both transports."""

import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import free_port, get_json, run, serve, server_process
from tests.support.waiting import eventually

ENVIRON = {
    "DATABASE_URL": "postgresql://u@127.0.0.1:1/d",
    "REDIS_URL": "redis://127.0.0.1:1/0",
    "POINTSMAN_DATABASE_TIMEOUT_SECONDS": "2",
    "POINTSMAN_ROLES": "api",
    "POINTSMAN_LISTEN": "127.0.0.1:0",
    "POINTSMAN_HTTP_LISTEN": "127.0.0.1:0",
}
TRANSPORTS = ["grpcio", "envoy"]


@pytest.fixture
def taken() -> Iterator[str]:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield f"127.0.0.1:{holder.getsockname()[1]}"


@pytest.fixture
def directory() -> Iterator[Path]:
    """A short path: that of a Unix socket has at most 107 bytes."""
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


def left(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir() if "pointsman" in path.name]


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("variable", ["POINTSMAN_LISTEN", "POINTSMAN_HTTP_LISTEN"])
def test_a_taken_port_is_named(transport: str, variable: str, taken: str, directory: Path) -> None:
    environ = ENVIRON | {variable: taken, "TMPDIR": str(directory)}
    with server_process("serve", "--transport", transport, **environ) as process:
        assert process.process.wait(60) == 1

        assert f"pointsman-server: cannot listen on {taken} ({variable})" in process.errors
        assert "envoy.main" not in process.errors
    assert left(directory) == []


def test_nothing_is_ready_before_grpc_listens_and_a_port_that_is_taken_meanwhile_is_named(directory: Path) -> None:
    port, http_port = free_port(), free_port()
    listen = {"POINTSMAN_LISTEN": f"127.0.0.1:{port}", "POINTSMAN_HTTP_LISTEN": f"127.0.0.1:{http_port}"}
    environ = ENVIRON | listen | {"TMPDIR": str(directory), "POINTSMAN_DATABASE_TIMEOUT_SECONDS": "5"}
    with server_process("serve", "--transport", "envoy", **environ) as process, socket.socket() as holder:

        def live() -> bool:
            try:
                return get_json(f"http://127.0.0.1:{http_port}/health/ready")[0] == 503
            except OSError:
                return False

        assert eventually(live)
        holder.bind(("127.0.0.1", port))
        holder.listen()

        assert process.process.wait(60) == 1
        assert f"pointsman-server: cannot listen on 127.0.0.1:{port} (POINTSMAN_LISTEN)" in process.errors
    assert left(directory) == []


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_broken_certificates_and_policy_are_2(transport: str, directory: Path) -> None:
    (directory / "policy.toml").write_text("not a policy")
    broken = {
        "POINTSMAN_TLS_CERT_FILE": str(directory / "absent.crt"),
        "POINTSMAN_TLS_KEY_FILE": str(directory / "absent.key"),
    }
    for setting in (broken, {"POINTSMAN_POLICY_FILE": str(directory / "policy.toml")}):
        environ = ENVIRON | setting | {"TMPDIR": str(directory)}
        with server_process("serve", "--transport", transport, **environ) as process:
            assert process.process.wait(60) == 2, process.errors
            assert "Traceback" not in process.errors
    assert left(directory) == []


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_server_that_is_told_to_stop_while_it_starts_never_serves(transport: str, directory: Path) -> None:
    port, http_port = free_port(), free_port()
    listen = {"POINTSMAN_LISTEN": f"127.0.0.1:{port}", "POINTSMAN_HTTP_LISTEN": f"127.0.0.1:{http_port}"}
    # It takes connections and says nothing, so the start waits for it.
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        database = f"postgresql://u@127.0.0.1:{silent.getsockname()[1]}/d"
        environ = ENVIRON | listen | {"TMPDIR": str(directory), "DATABASE_URL": database}
        with server_process("serve", "--transport", transport, **environ) as process:

            def starting() -> bool:
                try:
                    return get_json(f"http://127.0.0.1:{http_port}/health/ready")[0] == 503
                except OSError:
                    return False

            assert eventually(starting)
            process.process.send_signal(signal.SIGTERM)

            assert process.process.wait(60) == 0, process.errors
            assert "Traceback" not in process.errors
            if transport == "envoy":
                assert process.log("serving") == []
    assert left(directory) == []


def test_a_fallback_of_auto_is_told_in_the_log_and_by_check(directory: Path) -> None:
    # As where pyvoy is not installed.
    (directory / "sitecustomize.py").write_text("import sys; sys.modules['pyvoy'] = None")
    environ = ENVIRON | {"PYTHONPATH": str(directory)}
    why = "envoy cannot run: pyvoy is not installed"
    warning = f"the transport envoy would be faster, and takes JSON; this is grpcio: {why}"

    with serve("--transport", "auto", **environ) as (process, _, _http):
        (logged,) = [line for line in process.log_lines() if line["event"].startswith(warning)]
        assert logged["level"] == "warning"
        assert process.log("serving")[0]["transport"] == "grpcio"
    checked = run("pointsman-server", "check", **environ)
    assert "transport grpcio: envoy cannot run" in checked.stdout
    assert f"warning: {warning}" in checked.stdout


def test_settings_without_effect_are_told_in_the_log_and_by_check() -> None:
    environ = ENVIRON | {"POINTSMAN_TRANSPORT": "grpcio", "POINTSMAN_CORS_ORIGINS": "https://console.example"}
    warning = "POINTSMAN_CORS_ORIGINS has no effect on the transport grpcio: browsers need the transport envoy"

    with serve(**environ) as (process, _, _http):
        assert [line["level"] for line in process.log(warning)] == ["warning"]
    assert f"warning: {warning}" in run("pointsman-server", "check", **environ).stdout


def test_a_tmpdir_that_is_too_long_for_a_socket_is_2_and_says_what_to_set(directory: Path) -> None:
    long = directory / ("x" * 100)
    long.mkdir()
    with server_process("serve", "--transport", "envoy", **ENVIRON, TMPDIR=str(long)) as process:
        assert process.process.wait(60) == 2
        assert "set TMPDIR to a directory whose path has at most 71 bytes" in process.errors
    assert left(long) == []
