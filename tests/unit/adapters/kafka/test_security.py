"""adapters.kafka.security: the settings as librdkafka's, and the files that cannot be read."""

from pathlib import Path

from pointsman_server.adapters.kafka.security import cluster_of, unreadable_files
from pointsman_server.config.environment import load

BROKERS = {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9092"}


def settings(**values: str) -> dict[str, str]:
    return BROKERS | {f"POINTSMAN_KAFKA_{name}": value for name, value in values.items()}


def test_without_settings_nothing_is_set_but_the_protocol() -> None:
    cluster = cluster_of(load(BROKERS))
    assert cluster.options == {"security.protocol": "plaintext"}
    assert (cluster.bootstrap_servers, cluster.user) == ("127.0.0.1:9092", "this server")
    assert cluster.group("audit") == "pointsman-audit"


def test_scram_with_tls() -> None:
    given = settings(
        SECURITY_PROTOCOL="sasl_ssl",
        SASL_MECHANISM="SCRAM-SHA-256",
        SASL_USERNAME="u",
        SASL_PASSWORD="p",
        CA_FILE="/ca.pem",
        GROUP_PREFIX="team",
    )
    cluster = cluster_of(load(given))
    assert cluster.options == {
        "security.protocol": "sasl_ssl",
        "sasl.mechanisms": "SCRAM-SHA-256",
        "sasl.username": "u",
        "sasl.password": "p",
        "ssl.ca.location": "/ca.pem",
    }
    assert (cluster.user, cluster.group("audit")) == ("the user u", "team-audit")


def test_a_client_certificate() -> None:
    given = settings(SECURITY_PROTOCOL="ssl", CERT_FILE="/c.pem", KEY_FILE="/k.pem", KEY_PASSWORD="p")
    cluster = cluster_of(load(given))
    assert cluster.options == {
        "security.protocol": "ssl",
        "ssl.certificate.location": "/c.pem",
        "ssl.key.location": "/k.pem",
        "ssl.key.password": "p",
    }
    assert cluster.user == "the owner of our certificate"


def test_oauth_by_oidc() -> None:
    given = settings(
        SECURITY_PROTOCOL="sasl_ssl",
        SASL_MECHANISM="OAUTHBEARER",
        OAUTH_TOKEN_URL="https://issuer/token",
        OAUTH_CLIENT_ID="c",
        OAUTH_CLIENT_SECRET="s",
        OAUTH_SCOPE="kafka",
        OAUTH_EXTENSIONS="logicalCluster=lkc-1",
        OAUTH_CA_FILE="/oauth.pem",
    )
    cluster = cluster_of(load(given))
    assert cluster.options == {
        "security.protocol": "sasl_ssl",
        "sasl.mechanisms": "OAUTHBEARER",
        "sasl.oauthbearer.method": "oidc",
        "sasl.oauthbearer.client.id": "c",
        "sasl.oauthbearer.client.secret": "s",
        "sasl.oauthbearer.token.endpoint.url": "https://issuer/token",
        "sasl.oauthbearer.scope": "kafka",
        "sasl.oauthbearer.extensions": "logicalCluster=lkc-1",
        "https.ca.location": "/oauth.pem",
    }
    assert cluster.user == "the client c"


def test_files_that_cannot_be_read_are_named_by_their_setting(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").touch()
    given = settings(
        SECURITY_PROTOCOL="ssl",
        CA_FILE=str(tmp_path / "ca.pem"),
        CERT_FILE=str(tmp_path / "none.pem"),
        KEY_FILE=str(tmp_path),
    )
    assert unreadable_files(load(given)) == [
        f"POINTSMAN_KAFKA_CERT_FILE: {tmp_path}/none.pem cannot be read: No such file or directory",
        f"POINTSMAN_KAFKA_KEY_FILE: {tmp_path} cannot be read: Is a directory",
    ]
