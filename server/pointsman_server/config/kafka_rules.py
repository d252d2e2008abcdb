"""What must hold between the settings of Kafka."""

from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pointsman_server.config.names import variable
from pointsman_server.config.types import host_and_port, is_loopback

if TYPE_CHECKING:
    from pointsman_server.config.settings import Settings

_PASSWORD = ("kafka_sasl_username", "kafka_sasl_password")
_OAUTH = ("kafka_oauth_token_url", "kafka_oauth_client_id", "kafka_oauth_client_secret")
_OAUTH_OPTIONS = ("kafka_oauth_scope", "kafka_oauth_extensions", "kafka_oauth_ca_file")
_TLS = ("kafka_ca_file", "kafka_cert_file", "kafka_key_file")
_MECHANISMS = "PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER"


def kafka_contradictions(settings: "Settings") -> Iterator[str]:
    """Say in one line each which settings of Kafka do not go together."""
    yield from _replicas(settings)
    yield from _protocol(settings)
    yield from _credentials(settings)
    yield from _certificates(settings)
    yield from _secrets_in_clear(settings)


def _replicas(settings: "Settings") -> Iterator[str]:
    replicas, needed = settings.kafka_replication_factor, settings.kafka_min_insync_replicas
    if replicas and needed > replicas:
        yield (
            f"POINTSMAN_KAFKA_MIN_INSYNC_REPLICAS ({needed}) must be at most POINTSMAN_KAFKA_REPLICATION_FACTOR "
            f"({replicas}): no message would ever be stored"
        )


def _protocol(settings: "Settings") -> Iterator[str]:
    protocol, mechanism = settings.kafka_security_protocol, settings.kafka_sasl_mechanism
    if protocol.startswith("sasl_") and not mechanism:
        yield (
            f"POINTSMAN_KAFKA_SECURITY_PROTOCOL is {protocol}, and POINTSMAN_KAFKA_SASL_MECHANISM is not set: "
            f"set it to {_MECHANISMS}"
        )
    if mechanism and not protocol.startswith("sasl_"):
        yield (
            f"POINTSMAN_KAFKA_SASL_MECHANISM is {mechanism}, and POINTSMAN_KAFKA_SECURITY_PROTOCOL is {protocol}: "
            "set that to sasl_ssl"
        )


def _credentials(settings: "Settings") -> Iterator[str]:
    mechanism = settings.kafka_sasl_mechanism
    with_oauth, with_password = mechanism == "OAUTHBEARER", mechanism not in {"", "OAUTHBEARER"}
    for name in (*(_PASSWORD if with_password else ()), *(_OAUTH if with_oauth else ())):
        if not getattr(settings, name):
            yield f"POINTSMAN_KAFKA_SASL_MECHANISM is {mechanism}, and {variable(name)} is not set: set it"
    if settings.kafka_security_protocol.startswith("sasl_") and not mechanism:
        # Said already: the mechanism is missing.
        return
    for names, needed, of in (
        (_PASSWORD, with_password, "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"),
        ((*_OAUTH, *_OAUTH_OPTIONS), with_oauth, "OAUTHBEARER"),
    ):
        for name in () if needed else names:
            if getattr(settings, name):
                yield (
                    f"{variable(name)} is set, and POINTSMAN_KAFKA_SASL_MECHANISM is {mechanism or 'not set'}: "
                    f"set that to {of}, or remove it"
                )


def _certificates(settings: "Settings") -> Iterator[str]:
    for name, other in (("kafka_cert_file", "kafka_key_file"), ("kafka_key_file", "kafka_cert_file")):
        if getattr(settings, name) and not getattr(settings, other):
            yield f"{variable(name)} is set, and {variable(other)} is not: set both"
    if settings.kafka_key_password and not settings.kafka_key_file:
        yield "POINTSMAN_KAFKA_KEY_PASSWORD is set, and POINTSMAN_KAFKA_KEY_FILE is not: set both"
    protocol = settings.kafka_security_protocol
    for name in () if protocol.endswith("ssl") else _TLS:
        if getattr(settings, name):
            with_tls = "sasl_ssl" if protocol.startswith("sasl_") else "ssl"
            yield (
                f"{variable(name)} is set, and POINTSMAN_KAFKA_SECURITY_PROTOCOL is {protocol}, without TLS: "
                f"set that to {with_tls}"
            )


def _secrets_in_clear(settings: "Settings") -> Iterator[str]:
    if settings.allow_plaintext:
        return
    unless = "(POINTSMAN_ALLOW_PLAINTEXT=true takes it all the same, as behind a mesh)"
    hosts = [host_and_port(server)[0] for server in settings.kafka_bootstrap_servers.split(",") if server]
    in_clear = settings.kafka_sasl_mechanism in {"PLAIN", "OAUTHBEARER"}
    if settings.kafka_security_protocol == "sasl_plaintext" and in_clear and not all(map(is_loopback, hosts)):
        yield (
            f"POINTSMAN_KAFKA_SECURITY_PROTOCOL must be sasl_ssl with {settings.kafka_sasl_mechanism} beyond loopback: "
            f"without TLS the secret can be read on its way {unless}"
        )
    url = settings.kafka_oauth_token_url
    if url.startswith("http://") and not is_loopback(urlsplit(url).hostname or ""):
        yield (
            "POINTSMAN_KAFKA_OAUTH_TOKEN_URL must be https:// beyond loopback: the secret can be read on its way "
            f"{unless}"
        )
