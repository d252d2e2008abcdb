"""app.grpc_server: what the settings make of the server: transport, connections, rates, and a word on insecurity."""

from typing import Any

import pytest
from pointsman_server.rpc.transport.server import TransportUnavailable

from pointsman_server.app import grpc_server
from pointsman_server.app.grpc_server import choose_transport, connection_limits, make_throttling, report_insecurity
from pointsman_server.config.settings import Settings
from pointsman_server.domain.errors import RateLimited
from pointsman_server.rpc import HEALTH, SERVICE
from pointsman_server.rpc.interceptors.stage import Method
from pointsman_server.runtime.rate_limiter import Limiter
from pointsman_server.telemetry.metrics import Metrics

TLS = {"tls_cert_file": "c", "tls_key_file": "k"}
CLIENT_CA = {**TLS, "tls_client_ca_file": "a"}
BEYOND = {"listen": "0.0.0.0:50051"}


class FakeLog:
    """Keeps the warnings."""

    def __init__(self) -> None:
        self.warnings: list[tuple[str, dict[str, object]]] = []

    def warning(self, event: str, **values: object) -> None:
        self.warnings.append((event, values))


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> FakeLog:
    log = FakeLog()
    monkeypatch.setattr(grpc_server, "log", log)
    return log


@pytest.mark.parametrize(
    ("values", "chosen"),
    [
        ({}, "envoy"),
        ({"transport": "grpcio"}, "grpcio"),
        ({"transport": "envoy"}, "envoy"),
        # What only grpcio can do, or stands.
        (TLS, "grpcio"),
        ({"connection_idle_seconds": 1}, "grpcio"),
        ({"connection_age_seconds": 1}, "grpcio"),
        (BEYOND, "grpcio"),
    ],
)
def test_auto_is_native_where_it_can_be_and_what_is_asked_for_is_taken(
    log: FakeLog, values: dict[str, Any], chosen: str
) -> None:
    assert choose_transport(Settings(**values)) == chosen
    assert log.warnings == []


def test_a_native_transport_beyond_this_machine_is_warned_of(log: FakeLog) -> None:
    assert choose_transport(Settings(transport="envoy", **BEYOND)) == "envoy"
    ((event, _),) = log.warnings
    assert "only a mesh" in event


@pytest.mark.parametrize(("wanted", "chosen"), [("auto", "grpcio"), ("grpcio", "grpcio")])
def test_without_a_wheel_of_the_native_transport_auto_is_grpcio(
    monkeypatch: pytest.MonkeyPatch, wanted: Any, chosen: str
) -> None:
    monkeypatch.setattr(grpc_server.transport, "find_spec", lambda _name: None)
    assert choose_transport(Settings(transport=wanted)) == chosen


def test_a_native_transport_that_is_asked_for_and_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_server.transport, "find_spec", lambda _name: None)
    with pytest.raises(TransportUnavailable):
        choose_transport(Settings(transport="envoy"))


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


def test_without_a_rate_nothing_is_limited() -> None:
    assert make_throttling(Settings(), None, lambda _name: None) is None


@pytest.mark.parametrize(
    ("rate", "name"),
    [
        ("rate_identity_reads", "identity.reads"),
        ("rate_tenant_reads", "tenant.reads"),
        ("rate_identity_writes", "identity.writes"),
        ("rate_tenant_writes", "tenant.writes"),
    ],
)
def test_each_rate_limits_its_own_alone(rate: str, name: str) -> None:
    throttling = make_throttling(Settings(**{rate: 5, "rate_burst_seconds": 3}), None, lambda _name: None)
    assert throttling
    methods = (Method(SERVICE, "Resolve"), Method(SERVICE, "Create"))
    limiters = [limiter for limits in map(throttling.of, methods) for limiter in (limits.identity, limits.tenant)]
    (limiter,) = filter(None, limiters)
    assert limiter.name == name
    assert burst_of(limiter) == 15
    assert not throttling.of(Method(HEALTH, "Check"))


def burst_of(limiter: Limiter) -> int:
    """Count how many calls pass at once."""
    limiter._now = lambda: 0
    for passed in range(1000):
        try:
            limiter.take("me")
        except RateLimited:
            return passed
    raise AssertionError("it limits nothing")


@pytest.mark.parametrize(
    ("values", "anonymous", "plaintext"),
    [
        ({}, False, False),
        (BEYOND, True, True),
        ({**BEYOND, "api_keys": True}, False, True),
        ({**BEYOND, **TLS}, True, False),
        ({**BEYOND, **CLIENT_CA}, False, False),
        ({**BEYOND, "roles": "relay"}, False, False),
    ],
)
def test_insecurity_is_a_gauge_and_a_warning_that_names_what_allowed_it(
    log: FakeLog, values: dict[str, Any], anonymous: bool, plaintext: bool
) -> None:
    metrics = Metrics()
    report_insecurity(Settings(**values), metrics)

    told = {"anonymous": anonymous, "plaintext": plaintext}
    sample = metrics.registry.get_sample_value
    assert {what: sample("pointsman_insecure", {"what": what}) for what in told} == told
    assert [warned["allowed_by"] for _, warned in log.warnings] == [
        f"POINTSMAN_ALLOW_{what.upper()}" for what, is_so in told.items() if is_so
    ]
