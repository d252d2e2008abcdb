"""The settings of Kafka as those of librdkafka. Every client is made from the cluster that this makes."""

from pathlib import Path

from pointsman_server.adapters.kafka.cluster import KafkaCluster
from pointsman_server.config.names import variable
from pointsman_server.config.settings import Settings

FILES = ("kafka_ca_file", "kafka_cert_file", "kafka_key_file", "kafka_oauth_ca_file")


def cluster_of(settings: Settings) -> KafkaCluster:
    """Make the cluster that ``settings`` name, with the credentials that they hold."""
    return KafkaCluster(
        settings.kafka_bootstrap_servers, _options(settings), _user(settings), settings.kafka_group_prefix
    )


def unreadable_files(settings: Settings) -> list[str]:
    """Say in one line each which files of the settings cannot be read."""
    problems = []
    for name in FILES:
        path: Path | None = getattr(settings, name)
        try:
            if path is not None:
                path.open("rb").close()
        except OSError as error:
            problems.append(f"{variable(name)}: {path} cannot be read: {error.strerror}")
    return problems


def _options(settings: Settings) -> dict[str, str]:
    """Return what is set, without what would be a default: librdkafka rejects empty values."""
    options = {
        "security.protocol": settings.kafka_security_protocol,
        "ssl.ca.location": _path(settings.kafka_ca_file),
        "ssl.certificate.location": _path(settings.kafka_cert_file),
        "ssl.key.location": _path(settings.kafka_key_file),
        "ssl.key.password": settings.kafka_key_password.get_secret_value(),
        "sasl.mechanisms": settings.kafka_sasl_mechanism,
        "sasl.username": settings.kafka_sasl_username,
        "sasl.password": settings.kafka_sasl_password.get_secret_value(),
    }
    if settings.kafka_sasl_mechanism == "OAUTHBEARER":
        options |= {
            "sasl.oauthbearer.method": "oidc",
            "sasl.oauthbearer.client.id": settings.kafka_oauth_client_id,
            "sasl.oauthbearer.client.secret": settings.kafka_oauth_client_secret.get_secret_value(),
            "sasl.oauthbearer.token.endpoint.url": settings.kafka_oauth_token_url,
            "sasl.oauthbearer.scope": settings.kafka_oauth_scope,
            "sasl.oauthbearer.extensions": settings.kafka_oauth_extensions,
            "https.ca.location": _path(settings.kafka_oauth_ca_file),
        }
    return {name: value for name, value in options.items() if value}


def _path(path: Path | None) -> str:
    return str(path) if path else ""


def _user(settings: Settings) -> str:
    if settings.kafka_sasl_mechanism == "OAUTHBEARER":
        return f"the client {settings.kafka_oauth_client_id}"
    if settings.kafka_sasl_mechanism:
        return f"the user {settings.kafka_sasl_username}"
    return "the owner of our certificate" if settings.kafka_cert_file else "this server"
