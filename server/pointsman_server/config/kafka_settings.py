"""The settings of Kafka: its topic, and how a client connects and shows who it is."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, SecretStr

from pointsman_server.config.types import (
    AnyCase,
    GroupPrefix,
    HttpUrl,
    OptionalPath,
    SaslExtensions,
    SaslMechanism,
    Seconds,
    Secret,
    Topic,
)


class KafkaSettings(BaseModel):
    """The part of ``Settings`` that is about Kafka; the addresses of the brokers are among the engines."""

    kafka_topic: Topic = Field(default="route-events", description="Topic of the changes.")
    kafka_partitions: int = Field(
        default=12, ge=1, le=10_000, description="Partitions of the topic when it is created."
    )
    kafka_replication_factor: int = Field(
        default=0,
        ge=0,
        le=16,
        description="Replicas of a topic when it is created; 0 is 3, or one a broker where there are fewer.",
    )
    kafka_min_insync_replicas: int = Field(
        default=0,
        ge=0,
        le=16,
        description="Replicas that must have a message before it counts as stored, in a topic when it is created; "
        "0 is one fewer than there are replicas, and at least 1.",
    )
    kafka_group_prefix: GroupPrefix = Field(
        default="pointsman",
        description="What the names of our consumer groups begin with: `-cache` and `-audit` follow.",
    )
    kafka_message_timeout_seconds: Seconds = Field(
        default=30, description="Seconds until a message that no broker accepts has failed."
    )
    relay_batch: int = Field(default=500, ge=1, le=10_000, description="Most changes that the relay publishes at once.")

    kafka_security_protocol: Annotated[Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"], AnyCase] = Field(
        default="plaintext", description="How the brokers are spoken to: with or without TLS (ssl), and SASL."
    )
    kafka_ca_file: OptionalPath = Field(
        default=None,
        description="PEM of the authorities of the brokers' certificates. Without it, those that the system trusts.",
    )
    kafka_cert_file: OptionalPath = Field(
        default=None, description="PEM of the certificate chain that is shown to brokers (mTLS). Reread to reconnect."
    )
    kafka_key_file: OptionalPath = Field(default=None, description="PEM of its private key. Reread to reconnect.")
    kafka_key_password: Secret = Field(default=SecretStr(""), description="Password of the private key, if it has one.")
    kafka_sasl_mechanism: SaslMechanism = Field(
        default="", description="How this server shows the brokers who it is, with sasl_ssl or sasl_plaintext."
    )
    kafka_sasl_username: str = Field(default="", description="User for PLAIN and SCRAM.")
    kafka_sasl_password: Secret = Field(default=SecretStr(""), description="Password for PLAIN and SCRAM.")
    kafka_oauth_token_url: HttpUrl = Field(
        default="", description="Token endpoint for OAUTHBEARER (OIDC, client credentials)."
    )
    kafka_oauth_client_id: str = Field(default="", description="Client id for OAUTHBEARER.")
    kafka_oauth_client_secret: Secret = Field(
        default=SecretStr(""), description="Secret of the client for OAUTHBEARER."
    )
    kafka_oauth_scope: str = Field(default="", description="Scope that is asked of the token endpoint.")
    kafka_oauth_extensions: SaslExtensions = Field(
        default="", description="SASL extensions for OAUTHBEARER, as some hosted clusters want them."
    )
    kafka_oauth_ca_file: OptionalPath = Field(
        default=None,
        description="PEM of the authorities of the token endpoint. Without it, those that the system trusts.",
    )
