"""The settings of a server process, as fields with their types, bounds and defaults.

``Settings()`` does not read the environment: it has all defaults. ``environment.load`` reads the environment and flags;
nothing else does. Rules between fields are in ``rules``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AliasGenerator, ConfigDict, Field, PrivateAttr, SecretStr, model_validator

from pointsman_server.config import rules
from pointsman_server.config.kafka_settings import KafkaSettings
from pointsman_server.config.names import SettingSource, variable
from pointsman_server.config.redis_settings import RedisSettings
from pointsman_server.config.types import (
    DEFAULT_ROLES,
    Address,
    Algorithms,
    AnyCase,
    BootstrapServers,
    ConnectionSeconds,
    HttpUrl,
    LongSeconds,
    OptionalPath,
    Origins,
    PerSecond,
    PostgresUrl,
    PostgresUrls,
    RedisUrl,
    Seconds,
    ServerRoles,
    Switch,
)

LOCAL_REDIS = "redis://127.0.0.1:6379/0"


class Settings(KafkaSettings, RedisSettings):
    """All settings. Each attribute is one environment variable: ``names.variable`` says which.

    ``model_validate(values, context=sources)`` also keeps where the values come from.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=AliasGenerator(validation_alias=variable),
        validate_by_name=True,
        validate_by_alias=True,
        validate_default=True,
        hide_input_in_errors=True,
        str_strip_whitespace=True,
    )

    # The engines.
    database_url: PostgresUrl = Field(default=SecretStr(""), description="PostgreSQL, the truth. Always needed.")
    redis_url: RedisUrl = Field(
        default=SecretStr(""),
        description="Redis, the cache that servers share. Needed by the roles api and cache; the others use "
        f"`{LOCAL_REDIS}` where it is not set. `redis+cluster://` takes nodes of a cluster, `redis+sentinel://` "
        "Sentinels and the name of the primary; `rediss` is with TLS.",
    )
    kafka_bootstrap_servers: BootstrapServers = Field(
        default="", description="Kafka brokers to begin with. Needed by the roles relay, cache and audit."
    )

    # The process.
    listen: Address = Field(default="127.0.0.1:50051", description="Where gRPC listens.")
    http_listen: Address = Field(
        default="127.0.0.1:9464", description="Where operations listen: metrics and health by HTTP."
    )
    xds_listen: Address = Field(
        default="127.0.0.1:50052", description="Where the role xds listens: gRPC clients and Envoys connect to it."
    )
    workers: int = Field(default=1, ge=1, le=64, description="Processes that share the gRPC ports.")
    pin_workers: bool = Field(
        default=False, description="Keep each worker on a core of its own. For cores that no other process uses."
    )
    roles: ServerRoles = Field(default=DEFAULT_ROLES, description="What this process does.")
    transport: Annotated[Literal["auto", "grpcio", "envoy"], AnyCase] = Field(
        default="auto",
        description="The gRPC server: envoy, which is faster and speaks JSON too, or grpcio; auto is envoy if it runs.",
    )
    cors_origins: Origins = Field(
        default=(),
        description="Origins of web pages that may call, by JSON or gRPC-Web; `*` is every page. envoy only.",
    )
    lame_duck_seconds: float = Field(
        default=0,
        ge=0,
        le=600,
        allow_inf_nan=False,
        description="Seconds that a stopping server, already NOT_SERVING, goes on taking calls: balancers notice.",
    )
    drain_seconds: float = Field(
        default=10,
        ge=0,
        le=600,
        allow_inf_nan=False,
        description="Seconds that open calls get to finish on a stop.",
    )
    data_dir: Path = Field(
        default=Path(".pointsman"), description="Where `pointsman-server dev` keeps its data. Nothing else uses it."
    )

    # Logs.
    log_level: Annotated[Literal["debug", "info", "warning", "error"], AnyCase] = Field(
        default="info", description="The least severe messages that are logged."
    )
    log_format: Annotated[Literal["auto", "json", "console"], AnyCase] = Field(
        default="auto", description="Lines of JSON or text for people; auto is text on a terminal, else JSON."
    )
    access_log_sample: float = Field(
        default=0.0,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Fraction of successful calls logged at level info. At level debug every call is logged.",
    )

    tracing: bool = Field(
        default=False,
        description="Record traces and send them as the variables OTEL_* of OpenTelemetry say (docs/tracing.md).",
    )

    # Who may call.
    allow_anonymous: bool = Field(
        default=False,
        description="Listen beyond loopback without authentication: anybody may do everything.",
    )
    allow_plaintext: bool = Field(
        default=False, description="Listen beyond loopback without TLS, as behind a mesh that brings its own."
    )
    tls_cert_file: OptionalPath = Field(
        default=None,
        description="PEM of the certificate chain of the server; turns TLS on. Reread when it changes.",
    )
    tls_key_file: OptionalPath = Field(default=None, description="PEM of the private key. Reread when it changes.")
    tls_client_ca_file: OptionalPath = Field(
        default=None,
        description="PEM of the authorities of client certificates: each client must have one; it names the caller.",
    )
    jwt_issuer: str = Field(
        default="", description="The `iss` of bearer tokens (OIDC); turns them on, with their audience and keys."
    )
    jwt_audience: str = Field(default="", description="The `aud` that bearer tokens must have.")
    jwt_jwks_url: HttpUrl = Field(default="", description="Where the issuer publishes its keys (RFC 7517).")
    jwt_jwks_file: OptionalPath = Field(
        default=None, description="The keys of the issuer as a file instead. Reread when it changes."
    )
    jwt_algorithms: Algorithms = Field(
        default=("RS256", "ES256", "EdDSA"), description="The signatures that are accepted."
    )
    jwt_grants_claim: str = Field(
        default="",
        max_length=256,
        description="The claim that lists what a token grants, each as `role:tenant` or `role:tenant:env`.",
    )
    jwt_leeway_seconds: float = Field(
        default=30, ge=0, le=600, allow_inf_nan=False, description="Seconds that the clock of the issuer may differ."
    )
    jwt_refresh_seconds: Seconds = Field(default=300, description="Seconds between two looks at the issuer's keys.")
    api_keys: bool = Field(default=False, description="Take the API keys that `pointsman-server keys create` makes.")
    policy_file: OptionalPath = Field(
        default=None, description="Who is granted what, as TOML (docs/access.md). Reread when it changes."
    )
    access_refresh_seconds: Seconds = Field(
        default=5, description="Seconds between two looks at files of this part, and at the API keys."
    )
    auth_failures_per_second: float = Field(
        default=20,
        gt=0,
        le=100_000,
        allow_inf_nan=False,
        description="Bad credentials that are checked for one host in each worker; more are refused unchecked.",
    )

    # Limits of calls.
    deadline_seconds: Seconds = Field(
        default=5, description="Seconds that a call may take where the client sets no deadline."
    )
    max_message_bytes: int = Field(default=1048576, ge=1024, le=67108864, description="Largest request, in bytes.")
    max_metadata_bytes: int = Field(
        default=16384, ge=1024, le=1048576, description="Largest metadata of a request, all together, in bytes."
    )
    max_streams: int = Field(default=1000, ge=1, le=1_000_000, description="Calls open at once on one connection.")
    max_connections: int = Field(
        default=10_000,
        ge=1,
        le=1_000_000,
        description="Connections of clients open at once in each worker; more are closed as they arrive.",
    )
    max_heap_megabytes: int = Field(
        default=1024,
        ge=64,
        le=1_048_576,
        description="Megabytes of buffers and other native memory in each worker, beyond which calls are refused."
        " Envoy only; small Python objects do not count.",
    )
    max_concurrent_calls: int = Field(
        default=10_000,
        ge=0,
        le=1_000_000,
        description="Calls open at once in each worker; more are refused as overload. 0 is no limit.",
    )
    rate_identity_reads: PerSecond = Field(
        default=0,
        description="Reads per second of one identity in each worker; a BatchResolve is one a key. 0 is no limit.",
    )
    rate_identity_writes: PerSecond = Field(
        default=0, description="Writes per second of one identity in each worker. 0 is no limit."
    )
    rate_tenant_reads: PerSecond = Field(
        default=0, description="Reads per second of the routes of one tenant in each worker. 0 is no limit."
    )
    rate_tenant_writes: PerSecond = Field(
        default=0, description="Writes per second to the routes of one tenant in each worker. 0 is no limit."
    )
    rate_burst_seconds: LongSeconds = Field(
        default=1, description="Seconds of each rate that may come at once, after as long a pause."
    )
    rate_shared_writes: Switch = Field(
        default=False, description="Whether the rates of writes hold for all servers together, counted in Redis."
    )

    unread_seconds: LongSeconds = Field(
        default=10, description="Seconds until a client that does not read a large answer is disconnected."
    )

    # Connections.
    keepalive_seconds: LongSeconds = Field(
        default=60, description="Seconds of silence after which the server pings a client, to find those that are gone."
    )
    keepalive_timeout_seconds: LongSeconds = Field(
        default=20, description="Seconds until a client that does not answer the ping is disconnected."
    )
    client_ping_seconds: LongSeconds = Field(
        default=10,
        description="Seconds that clients must leave between pings, or they are disconnected. grpcio only.",
    )
    connection_idle_seconds: ConnectionSeconds = Field(
        default=0, description="Seconds after which a connection without calls is closed; 0 is never."
    )
    connection_age_seconds: ConnectionSeconds = Field(
        default=0,
        description="Seconds after which clients must connect anew, which spreads them; 0 is never.",
    )

    # PostgreSQL.
    database_session_url: PostgresUrl = Field(
        default=SecretStr(""),
        description="The database of `DATABASE_URL` past a pooler in transaction mode, for the relay and `migrate`. "
        "Set it where there is such a pooler, and only there.",
    )
    database_replica_urls: PostgresUrls = Field(
        default=SecretStr(""),
        description="Read replicas of the database of `DATABASE_URL`, for reads that no cache answers. The primary "
        "confirms each such read.",
    )
    audit_database_url: PostgresUrl = Field(
        default=SecretStr(""),
        description="PostgreSQL for the audit log. Without it, the log lies in that of `DATABASE_URL`.",
    )
    database_pool_min: int = Field(default=2, ge=0, le=1000, description="Connections that each worker keeps open.")
    database_pool_max: int = Field(
        default=10,
        ge=2,
        le=1000,
        description="Most connections that each worker opens; more than the store load concurrency.",
    )
    database_timeout_seconds: Seconds = Field(
        default=3, description="Seconds to wait for a connection, and again for each statement."
    )
    request_id_ttl_hours: int = Field(
        default=24,
        ge=1,
        le=8760,
        description="Hours that the answer of a mutation is kept for replays of its request_id.",
    )

    # The caches.
    cache_local_size: int = Field(
        default=100_000, ge=1, le=100_000_000, description="Most routes cached in each worker."
    )
    cache_local_ttl_seconds: Seconds = Field(
        default=1,
        description="Seconds that a worker answers from its local cache after the answer was read, or confirmed by the "
        "feed, which goes on as long as it can.",
    )
    cache_ttl_seconds: LongSeconds = Field(
        default=300, description="Seconds that Redis keeps a route, give or take the jitter."
    )
    cache_negative_ttl_seconds: LongSeconds = Field(
        default=30, description="Seconds that Redis keeps the absence of a route, give or take the jitter."
    )
    heartbeat_seconds: float = Field(
        default=0,
        ge=0,
        le=3600,
        allow_inf_nan=False,
        description="Seconds between the changes of a route that measures how stale caches are; 0 makes none.",
    )
    store_load_concurrency: int = Field(
        default=4, ge=1, le=999, description="Loads from PostgreSQL at once in each worker; fewer than the connections."
    )
    store_load_batch: int = Field(default=200, ge=1, le=1000, description="Most routes read by one load.")
    store_load_queue: int = Field(
        default=2000,
        ge=1000,
        le=1_000_000,
        description="Most routes that wait to be loaded; more are refused as overload. A whole BatchResolve fits.",
    )

    # Watches.
    watch_recent_changes: int = Field(
        default=10_000,
        ge=1,
        le=10_000_000,
        description="Changes kept in the memory of each worker, for watches that were away for a moment.",
    )
    watch_history_changes: int = Field(
        default=1_000_000,
        ge=0,
        le=1_000_000_000,
        description="Changes after which a watch cannot resume, and begins with a snapshot; 0 is without a limit.",
    )
    watch_history_hours: float = Field(
        default=72,
        ge=0,
        le=87_600,
        allow_inf_nan=False,
        description="Hours after which a watch cannot resume, and begins with a snapshot; 0 is without a limit.",
    )
    watch_snapshots: int = Field(
        default=16, ge=1, le=10_000, description="Watches that each worker sends a snapshot at once; others wait."
    )

    # Usage.
    usage_hours: float = Field(
        default=24,
        ge=0,
        le=8760,
        allow_inf_nan=False,
        description="Hours that reads of a route are counted by caller, in Redis; 0 counts none.",
    )

    _sources: dict[str, SettingSource] = PrivateAttr(default_factory=dict)

    def model_post_init(self, context: Any) -> None:
        self._sources = dict(context or {})

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if problems := rules.contradictions(self):
            raise ValueError("\n".join(problems))
        return self

    @property
    def sources(self) -> Mapping[str, SettingSource]:
        """Where the values come from, by attribute; those that are missing are defaults."""
        return self._sources

    @property
    def authenticates(self) -> bool:
        """Whether callers must show who they are."""
        return bool(self.jwt_issuer or self.api_keys or self.tls_client_ca_file)

    @property
    def cache_url(self) -> str:
        """``redis_url``, or that of this machine: only the roles api and cache need one to be set. Holds a password."""
        return self.redis_url.get_secret_value() or LOCAL_REDIS
