"""config.kafka_settings: what the environment may say of Kafka, and what is shown of its secrets."""

import pytest

from pointsman_server.config.describe import describe, effective
from pointsman_server.config.environment import as_environ, load
from pointsman_server.config.rules import SettingsError

SECURED = {
    "POINTSMAN_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
    "POINTSMAN_KAFKA_SASL_MECHANISM": "scram-sha-512",
    "POINTSMAN_KAFKA_SASL_USERNAME": "pointsman",
    "POINTSMAN_KAFKA_SASL_PASSWORD": "canary://canary",
}


def test_names_are_taken_in_any_case_and_last_in_the_table() -> None:
    settings = load(SECURED)
    assert (settings.kafka_security_protocol, settings.kafka_sasl_mechanism) == ("sasl_ssl", "SCRAM-SHA-512")
    names = [row.variable for row in describe()]
    assert names[0] == "DATABASE_URL"
    assert names.index("POINTSMAN_KAFKA_TOPIC") > names.index("POINTSMAN_USAGE_HOURS")


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("SASL_MECHANISM", "SCRAM-SHA-521", "must be PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER, not "),
        ("SASL_MECHANISM", "SCRAM-SHA-521", "did you mean SCRAM-SHA-512?"),
        ("SECURITY_PROTOCOL", "tls", "must be plaintext or ssl or sasl_plaintext or sasl_ssl, not 'tls'"),
        ("OAUTH_EXTENSIONS", "logicalCluster", "must be key=value, comma separated"),
        ("GROUP_PREFIX", "a b", "must be 1 to 200 of A-Z a-z 0-9 . _ -"),
    ],
)
def test_what_is_misspelt_is_named_with_what_may_be_meant(name: str, value: str, problem: str) -> None:
    with pytest.raises(SettingsError) as error:
        load({f"POINTSMAN_KAFKA_{name}": value})
    assert f"POINTSMAN_KAFKA_{name} " in str(error.value)
    assert problem in str(error.value)


def test_secrets_are_never_shown_and_reach_child_processes() -> None:
    settings = load(SECURED)
    assert "canary" not in repr(settings)
    shown = {row.variable: row.value for row in effective(settings)}
    assert shown["POINTSMAN_KAFKA_SASL_PASSWORD"] == "***"
    assert shown["POINTSMAN_KAFKA_KEY_PASSWORD"] == ""
    assert "canary" not in "".join(shown.values())
    assert load(as_environ(settings)) == settings
