"""What an error of Kafka means, and what to do: the end of a sentence that begins with the brokers."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pointsman_server.adapters.kafka.client_errors import is_alert, words

if TYPE_CHECKING:
    from confluent_kafka import KafkaError

# The names by which librdkafka complains, and ours.
_VARIABLES = {
    "ssl.ca.location": "POINTSMAN_KAFKA_CA_FILE",
    "ssl.certificate.location": "POINTSMAN_KAFKA_CERT_FILE",
    "ssl.key.location": "POINTSMAN_KAFKA_KEY_FILE",
    "ssl.key.password": "POINTSMAN_KAFKA_KEY_PASSWORD",
    "sasl.oauthbearer.token.endpoint.url": "POINTSMAN_KAFKA_OAUTH_TOKEN_URL",
    "https.ca.location": "POINTSMAN_KAFKA_OAUTH_CA_FILE",
}
GRANT = "grant it in the ACLs"


def explain(
    error: "KafkaError | None",
    reported: "KafkaError | None",
    *,
    user: str,
    topic: str,
    group: str,
    certificate: str,
) -> str:
    """Explain the result ``error`` of a client, which has ``reported`` why it cannot connect, if it knows.

    ``certificate`` is the path of the client certificate.
    """
    if error is None or _says_nothing(error):
        return _explain_connection(reported, user, certificate)
    if error.code() in {error._AUTHENTICATION, error._SSL, error._RESOLVE}:  # noqa: SLF001 - constants
        return _explain_connection(error, user, certificate)
    return _explain_answer(error, user, topic, group)


def _says_nothing(error: "KafkaError") -> bool:
    """Tell whether it is about a connection or a time limit, and not an answer of a broker."""
    return error.code() in {
        error._TRANSPORT,  # noqa: SLF001 - constants
        error._TIMED_OUT,  # noqa: SLF001
        error._MSG_TIMED_OUT,  # noqa: SLF001
        error._TIMED_OUT_QUEUE,  # noqa: SLF001
        error._ALL_BROKERS_DOWN,  # noqa: SLF001
        error._PURGE_QUEUE,  # noqa: SLF001
        error._PURGE_INFLIGHT,  # noqa: SLF001
        error._WAIT_COORD,  # noqa: SLF001
    }


def is_denied(error: "KafkaError | None") -> bool:
    """Tell whether a broker says that we have no right to do it."""
    return error is not None and error.code() in {
        error.TOPIC_AUTHORIZATION_FAILED,
        error.GROUP_AUTHORIZATION_FAILED,
        error.CLUSTER_AUTHORIZATION_FAILED,
    }


def _explain_answer(error: "KafkaError", user: str, topic: str, group: str) -> str:
    denied = {
        error.TOPIC_AUTHORIZATION_FAILED: f"the topic {topic}",
        error.GROUP_AUTHORIZATION_FAILED: f"the group {group}",
        # Of an idempotent producer that may write to no topic.
        error.CLUSTER_AUTHORIZATION_FAILED: f"the topic {topic}",
    }
    if what := denied.get(error.code()):
        return f"does not let {user} use {what}: {GRANT} ({words(error)})"
    if error.code() in {error.UNKNOWN_TOPIC_OR_PART, error._UNKNOWN_TOPIC}:  # noqa: SLF001 - a constant
        return f"has no topic {topic}"
    if error.code() == error._INVALID_ARG:  # noqa: SLF001 - a constant
        return f"cannot be connected to with these settings: {_with_our_names(words(error))}"
    return f"failed: {words(error)}"


def _explain_connection(error: "KafkaError | None", user: str, certificate: str) -> str:
    if error is None:
        return "does not answer"
    text = words(error)
    if error.code() == error._AUTHENTICATION:  # noqa: SLF001 - a constant
        if "token" in text:
            return (
                f"gets no token of {user}: {text}; check POINTSMAN_KAFKA_OAUTH_TOKEN_URL, _CLIENT_ID and _CLIENT_SECRET"
            )
        return f"refuses {user}: {text}; check the mechanism, the user and the secret in POINTSMAN_KAFKA_SASL_*"
    if error.code() == error._SSL:  # noqa: SLF001 - a constant
        return f"is not trusted: {_with_our_names(text)}; check POINTSMAN_KAFKA_CA_FILE and the names of the brokers"
    if is_alert(error):
        why = expiry(certificate) if certificate else "none is set"
        return f"refuses the client certificate: {why or text}; check POINTSMAN_KAFKA_CERT_FILE"
    if error.code() == error._RESOLVE:  # noqa: SLF001 - a constant
        return f"cannot be found: {text}"
    if "SSL" in text:
        return f"does not speak TLS there: {text}; check the port, and POINTSMAN_KAFKA_SECURITY_PROTOCOL"
    # Other texts differ from one attempt to the next, and would be logged each time.
    return "does not answer: Connection refused" if "Connection refused" in text else "does not answer"


def expiry(certificate: str) -> str:
    """Say that the first certificate of a PEM file has expired or cannot be read; empty if neither."""
    from cryptography import x509  # it takes megabytes, and is needed after an error alone

    try:
        found = x509.load_pem_x509_certificate(Path(certificate).read_bytes())
    except (OSError, ValueError) as error:
        return f"{certificate} cannot be read ({type(error).__name__})"
    end = found.not_valid_after_utc
    return f"{certificate} expired at {end:%Y-%m-%d %H:%M} UTC" if end < datetime.now(UTC) else ""


def _with_our_names(text: str) -> str:
    for name, variable in _VARIABLES.items():
        text = text.replace(name, variable)
    return text
