"""app.listening: what the settings say about listening for gRPC."""

import socket
from pathlib import Path
from typing import Any

import pytest

from pointsman_server.adapters.files.certificates import expires
from pointsman_server.app import listening
from pointsman_server.app.listening import (
    Addresses,
    ListenError,
    bindable,
    call_limits,
    certificate_expiry,
    choose_transport,
    connection_limits,
    descriptors_for,
    most_connections,
    most_streams,
    tls_files,
)
from pointsman_server.config.settings import Settings
from pointsman_server.rpc.transport.certificates import Files
from pointsman_server.rpc.transport.choice import TransportUnavailable
from pointsman_server.runtime import descriptors
from tests.support.certificates import Authority, TlsFiles

TLS = {"tls_cert_file": "c", "tls_key_file": "k"}
CLIENT_CA = {**TLS, "tls_client_ca_file": "a"}


@pytest.mark.parametrize(("missing", "chosen"), [("", "envoy"), ("it is not here", "grpcio")])
def test_auto_is_envoy_where_it_runs(monkeypatch: pytest.MonkeyPatch, missing: str, chosen: str) -> None:
    monkeypatch.setattr(listening, "missing", lambda: missing)

    assert choose_transport(Settings()).transport == chosen


def test_envoy_that_is_asked_for_and_cannot_run_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "missing", lambda: "it is not here")

    with pytest.raises(TransportUnavailable, match="it is not here"):
        choose_transport(Settings(transport="envoy"))


def test_tls_is_on_with_a_certificate() -> None:
    assert tls_files(Settings()) is None
    assert tls_files(Settings(**TLS)) == Files(Path("c"), Path("k"))
    assert tls_files(Settings(**CLIENT_CA)) == Files(Path("c"), Path("k"), Path("a"))


def test_the_certificates_whose_end_is_told_are_those_of_tls(tmp_path: Path) -> None:
    assert certificate_expiry(Settings()) is None
    files, authority = TlsFiles(tmp_path), Authority()
    files.write(authority.client(dns=("localhost",), days=1), authority.pem)
    chain = {"tls_cert_file": files.cert, "tls_key_file": files.key}
    for values, names in (
        (chain, {"server"}),
        ({**chain, "tls_client_ca_file": files.client_ca}, {"server", "client_ca"}),
    ):
        expiry = certificate_expiry(Settings(**values))
        assert expiry
        assert set(expiry.times()) == names
        assert expiry.times()["server"] == expires(files.cert.read_bytes())


def test_calls_are_bounded_as_the_settings_say() -> None:
    limits = call_limits(Settings(max_message_bytes=2048, max_metadata_bytes=1024, max_streams=7))

    assert (limits.message_bytes, limits.metadata_bytes, limits.streams) == (2048, 1024, 7)


def test_connections_are_pinged_as_the_settings_say() -> None:
    limits = connection_limits(
        Settings(keepalive_seconds=7, keepalive_timeout_seconds=3, client_ping_seconds=2, connection_idle_seconds=11)
    )
    assert (limits.keepalive, limits.keepalive_timeout, limits.client_ping, limits.idle) == (7, 3, 2, 11)


@pytest.mark.parametrize(
    ("values", "age"),
    [
        ({}, 0),
        ({"connection_age_seconds": 60}, 60),
        # A certificate is checked when a connection begins.
        (TLS, 0),
        (CLIENT_CA, 900),
        ({**CLIENT_CA, "connection_age_seconds": 60}, 60),
        ({**CLIENT_CA, "connection_age_seconds": 3600}, 900),
    ],
)
def test_a_connection_ends_by_the_lower_of_its_ages(values: dict[str, Any], age: float) -> None:
    assert connection_limits(Settings(**values)).age == age


def test_a_name_is_resolved_and_its_addresses_share_a_port() -> None:
    found = bindable(Settings(listen="localhost:0"))

    assert "127.0.0.1" in found.hosts
    assert found.port or len(found.hosts) == 1


def test_one_address_leaves_the_choice_of_the_port_to_who_listens() -> None:
    assert bindable(Settings(listen="127.0.0.1:0")) == Addresses(["127.0.0.1"], 0)


def test_an_address_that_is_taken_is_named() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        address = f"127.0.0.1:{holder.getsockname()[1]}"

        with pytest.raises(ListenError, match=rf"cannot listen on {address} \(POINTSMAN_LISTEN\)"):
            bindable(Settings(listen=address))


def test_workers_may_share_an_address() -> None:
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]

        assert bindable(Settings(listen=f"127.0.0.1:{port}", workers=2)).port == port


@pytest.mark.parametrize("listen", ["192.0.2.1:50051", "no.such.host.invalid:50051"])
def test_an_address_that_is_not_of_this_machine_is_named(listen: str) -> None:
    with pytest.raises(ListenError, match="POINTSMAN_LISTEN"):
        bindable(Settings(listen=listen))


def test_of_several_addresses_those_that_are_absent_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET, 1, 6, "", (host, 0)) for host in ("192.0.2.1", "127.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)

    assert bindable(Settings(listen="both:0")).hosts == ["127.0.0.1"]


@pytest.mark.parametrize(
    ("reachable", "taken"), [(20_000, 10_000), (10_266, 10_000), (10_265, 9_999), (4096, 3830), (256, 128)]
)
def test_connections_leave_descriptors_for_the_rest(
    monkeypatch: pytest.MonkeyPatch, reachable: int, taken: int
) -> None:
    monkeypatch.setattr(descriptors, "within_reach", lambda: reachable)

    assert most_connections(Settings()) == taken
    assert connection_limits(Settings()).most == taken
    assert descriptors_for(Settings()) == 10_266


@pytest.mark.parametrize(("connections", "calls", "streams"), [(30, 20, 20), (20, 30, 20), (20, 0, 20)])
def test_streams_of_xds_are_bounded_as_connections_and_as_calls(connections: int, calls: int, streams: int) -> None:
    assert most_streams(Settings(max_connections=connections, max_concurrent_calls=calls)) == streams


def test_two_ports_share_the_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptors, "within_reach", lambda: 20_000)
    both = Settings(roles="api,xds")
    assert most_connections(both) == 9_867
    assert descriptors_for(both) == 20_266
