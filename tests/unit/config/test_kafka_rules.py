"""config.kafka_rules: each contradiction is refused by name, and what goes together is not."""

import pytest

from pointsman_server.config.environment import load
from pointsman_server.config.rules import SettingsError

PASSWORD = {"SASL_USERNAME": "u", "SASL_PASSWORD": "canary"}
SCRAM = {"SECURITY_PROTOCOL": "sasl_ssl", "SASL_MECHANISM": "SCRAM-SHA-512", **PASSWORD}
OAUTH = {
    "SECURITY_PROTOCOL": "sasl_ssl",
    "SASL_MECHANISM": "OAUTHBEARER",
    "OAUTH_TOKEN_URL": "https://issuer/token",
    "OAUTH_CLIENT_ID": "client",
    "OAUTH_CLIENT_SECRET": "canary",
}
MTLS = {"SECURITY_PROTOCOL": "ssl", "CERT_FILE": "/c.pem", "KEY_FILE": "/k.pem"}


def problems(values: dict[str, str], **others: str) -> list[str]:
    environ = {f"POINTSMAN_KAFKA_{name}": value for name, value in values.items()}
    try:
        load({"KAFKA_BOOTSTRAP_SERVERS": "kafka:9092", **environ, **others})
    except SettingsError as error:
        assert "canary" not in str(error)
        return list(error.problems)
    return []


@pytest.mark.parametrize(
    "values",
    [
        {},
        SCRAM,
        SCRAM | {"CA_FILE": "/ca.pem"},
        OAUTH | {"OAUTH_SCOPE": "kafka", "OAUTH_EXTENSIONS": "logicalCluster=lkc-1,identityPoolId=p-1"},
        MTLS | {"KEY_PASSWORD": "canary"},
        MTLS | SCRAM,
        SCRAM | {"SECURITY_PROTOCOL": "sasl_plaintext"},
        {"REPLICATION_FACTOR": "3", "MIN_INSYNC_REPLICAS": "3"},
        {"MIN_INSYNC_REPLICAS": "2"},
    ],
)
def test_what_goes_together_is_taken(values: dict[str, str]) -> None:
    assert problems(values) == []


def without(values: dict[str, str], name: str) -> dict[str, str]:
    return {other: value for other, value in values.items() if other != name}


@pytest.mark.parametrize(
    ("values", "names", "remedy"),
    [
        (without(SCRAM, "SASL_MECHANISM"), ["SECURITY_PROTOCOL", "SASL_MECHANISM"], "set it to PLAIN, SCRAM-SHA-256"),
        (without(SCRAM, "SECURITY_PROTOCOL"), ["SASL_MECHANISM", "SECURITY_PROTOCOL"], "set that to sasl_ssl"),
        (without(SCRAM, "SASL_USERNAME"), ["SASL_MECHANISM", "SASL_USERNAME"], "is not set: set it"),
        (without(SCRAM, "SASL_PASSWORD"), ["SASL_MECHANISM", "SASL_PASSWORD"], "is not set: set it"),
        (without(OAUTH, "OAUTH_TOKEN_URL"), ["SASL_MECHANISM", "OAUTH_TOKEN_URL"], "is not set: set it"),
        (without(OAUTH, "OAUTH_CLIENT_ID"), ["SASL_MECHANISM", "OAUTH_CLIENT_ID"], "is not set: set it"),
        (without(OAUTH, "OAUTH_CLIENT_SECRET"), ["SASL_MECHANISM", "OAUTH_CLIENT_SECRET"], "is not set: set it"),
        (OAUTH | {"SASL_USERNAME": "u"}, ["SASL_USERNAME", "SASL_MECHANISM"], "set that to PLAIN, SCRAM-SHA-256"),
        (SCRAM | {"OAUTH_SCOPE": "s"}, ["OAUTH_SCOPE", "SASL_MECHANISM"], "set that to OAUTHBEARER, or remove it"),
        (MTLS | {"SASL_PASSWORD": "canary"}, ["SASL_PASSWORD", "SASL_MECHANISM"], "is not set: set that to PLAIN"),
        (without(MTLS, "KEY_FILE"), ["CERT_FILE", "KEY_FILE"], "set both"),
        (without(MTLS, "CERT_FILE"), ["KEY_FILE", "CERT_FILE"], "set both"),
        ({"SECURITY_PROTOCOL": "ssl", "KEY_PASSWORD": "canary"}, ["KEY_PASSWORD", "KEY_FILE"], "set both"),
        ({"CA_FILE": "/ca.pem"}, ["CA_FILE", "SECURITY_PROTOCOL"], "set that to ssl"),
        (
            SCRAM | {"SECURITY_PROTOCOL": "sasl_plaintext", "CA_FILE": "/ca.pem"},
            ["CA_FILE", "SECURITY_PROTOCOL"],
            "set that to sasl_ssl",
        ),
        (
            SCRAM | {"SECURITY_PROTOCOL": "sasl_plaintext", "SASL_MECHANISM": "PLAIN"},
            ["SECURITY_PROTOCOL"],
            "sasl_ssl with PLAIN beyond loopback",
        ),
        (OAUTH | {"OAUTH_TOKEN_URL": "http://issuer/token"}, ["OAUTH_TOKEN_URL"], "must be https:// beyond loopback"),
        (
            {"REPLICATION_FACTOR": "2", "MIN_INSYNC_REPLICAS": "3"},
            ["MIN_INSYNC_REPLICAS", "REPLICATION_FACTOR"],
            "must be at most",
        ),
    ],
)
def test_a_contradiction_is_one_line_that_says_what_to_set(
    values: dict[str, str], names: list[str], remedy: str
) -> None:
    (problem,) = problems(values)
    assert all(f"POINTSMAN_KAFKA_{name}" in problem for name in names), problem
    assert remedy in problem


@pytest.mark.parametrize(
    "values",
    [
        SCRAM | {"SECURITY_PROTOCOL": "sasl_plaintext", "SASL_MECHANISM": "PLAIN"},
        OAUTH | {"OAUTH_TOKEN_URL": "http://issuer/token"},
    ],
)
def test_a_mesh_or_loopback_may_go_without_tls(values: dict[str, str]) -> None:
    assert problems(values, POINTSMAN_ALLOW_PLAINTEXT="true") == []
    here = {"OAUTH_TOKEN_URL": "http://127.0.0.1:1/token"} if "OAUTH_TOKEN_URL" in values else {}
    assert problems(values | here, KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:9092,localhost:9093") == []
