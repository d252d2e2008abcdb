"""app.start_warnings: what a server does not do though the settings ask for it."""

import pytest

from pointsman_server.app.start_warnings import start_warnings
from pointsman_server.config.environment import load
from pointsman_server.rpc.transport.choice import Choice, Transport
from pointsman_server.runtime import descriptors

BROWSERS = {"POINTSMAN_CORS_ORIGINS": "https://console.example"}
HEAP = {"POINTSMAN_MAX_HEAP_MEGABYTES": "512"}
PINGS = {"POINTSMAN_CLIENT_PING_SECONDS": "5"}


@pytest.fixture(autouse=True)
def plenty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptors, "within_reach", lambda: 1 << 20)


def warnings(environ: dict[str, str], transport: Transport) -> list[str]:
    return list(start_warnings(load(environ), Choice(transport, "it is not here")))


@pytest.mark.parametrize("transport", ["grpcio", "envoy"])
def test_settings_that_are_not_touched_are_no_reason_to_warn(transport: Transport) -> None:
    assert warnings({"POINTSMAN_TRANSPORT": transport}, transport) == []


def test_a_slower_transport_than_auto_would_take_is_told_with_the_reason() -> None:
    (text,) = warnings({}, "grpcio")

    assert text == "the transport envoy would be faster, and takes JSON; this is grpcio: it is not here"
    assert warnings({}, "envoy") == []


@pytest.mark.parametrize(
    ("environ", "transport", "other"),
    [(BROWSERS, "grpcio", "envoy"), (HEAP, "grpcio", "envoy"), (PINGS, "envoy", "grpcio")],
)
def test_a_setting_that_the_transport_does_not_know_is_named(
    environ: dict[str, str], transport: Transport, other: Transport
) -> None:
    (name,) = environ
    (text,) = warnings(environ | {"POINTSMAN_TRANSPORT": transport}, transport)

    assert text.startswith(f"{name} has no effect on the transport {transport}: ")
    assert warnings(environ | {"POINTSMAN_TRANSPORT": other}, other) == []


def test_connections_that_descriptors_do_not_suffice_for_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptors, "within_reach", lambda: 4096)
    (text,) = warnings({"POINTSMAN_TRANSPORT": "envoy"}, "envoy")

    assert "POINTSMAN_MAX_CONNECTIONS (10000) needs 10266 file descriptors" in text
    assert "may have 4096: it takes 3830 connections" in text


@pytest.mark.parametrize("name", ["DATABASE_URL", "POINTSMAN_DATABASE_SESSION_URL"])
def test_several_hosts_of_which_any_may_answer_are_told(name: str) -> None:
    (text,) = warnings({name: "postgresql://u:canary@a,b/d"}, "envoy")

    assert text.startswith(f"{name} names several hosts without target_session_attrs=read-write: ")
    for fine in ("a/d", "a,b/d?target_session_attrs=read-write", "a,b/d?target_session_attrs=primary"):
        assert warnings({name: f"postgresql://u@{fine}"}, "envoy") == []


def test_without_a_transport_what_is_of_every_port_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = load({"POINTSMAN_ROLES": "xds"})
    assert list(start_warnings(alone, None)) == []
    monkeypatch.setattr(descriptors, "within_reach", lambda: 4096)
    (text,) = start_warnings(alone, None)
    assert "POINTSMAN_MAX_CONNECTIONS (10000)" in text
