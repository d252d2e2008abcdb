"""app.grpc_server: what the settings make of the server: rates, and a word on insecurity."""

from typing import Any

import pytest

from pointsman_server.app import grpc_server
from pointsman_server.app.grpc_server import make_throttling, report_insecurity
from pointsman_server.config.settings import Settings
from pointsman_server.domain.access_errors import RateLimited
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
