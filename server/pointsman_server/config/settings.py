"""Every setting of the server. Nothing else reads the environment.

``load`` builds the one frozen ``Settings`` from the environment and from flags. ``Settings()`` never looks at the
environment: it is all defaults, which is what tests want. ``python -m pointsman_server.config.settings`` prints the
table of docs/reference.
"""

import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args, get_origin
from urllib.parse import urlsplit

from annotated_types import Ge, Gt, Le
from pydantic import (
    AliasGenerator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from pointsman_server.config.types import (
    Address,
    Algorithms,
    Allowed,
    AnyCase,
    BootstrapServers,
    ConnectionSeconds,
    HttpUrl,
    KeyPrefix,
    LongSeconds,
    OptionalPath,
    PerSecond,
    PostgresUrl,
    RedisUrl,
    Seconds,
    ServerRole,
    ServerRoles,
    Switch,
    Topic,
    did_you_mean,
    host_and_port,
    is_loopback,
    mask_credentials,
    nearest,
)

__all__ = [
    "Description",
    "Effective",
    "ServerRole",
    "Settings",
    "SettingsError",
    "describe",
    "host_and_port",
    "is_loopback",
    "load",
    "markdown",
    "mask_credentials",
    "variable",
]

PREFIX = "POINTSMAN_"
# Named as everybody's tools name them.
UNPREFIXED = frozenset({"database_url", "redis_url", "kafka_bootstrap_servers"})
# Names that may stand in the same environment without being settings of the server: those of the `pointsman` command
# and of the test runner, and what processes of ours tell each other.
OF_OTHERS = frozenset(
    {
        "POINTSMAN_CA_FILE",
        "POINTSMAN_CERT_FILE",
        "POINTSMAN_KEY_FILE",
        "POINTSMAN_REQUIRE_ALL",
        "POINTSMAN_SERVER",
        "POINTSMAN_TIMEOUT",
        "POINTSMAN_TLS",
        "POINTSMAN_TOKEN",
        "POINTSMAN_TOKEN_FILE",
    }
)
INTERNAL_PREFIX = "POINTSMAN_INTERNAL_"
# Kubernetes tells every pod about every Service of its namespace, and the Service is likely named pointsman.
SERVICE_LINK = re.compile(r"POINTSMAN_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_\w+)?)")
SERVICE_LINK_VALUE = re.compile(r"(tcp|udp|sctp)://.*")

SettingSource = Literal["default", "environment", "flag", "embedded"]


class SettingsError(Exception):
    """The settings do not make sense: one readable line per problem. Never holds a secret."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


def variable(name: str) -> str:
    """Name the environment variable of the attribute ``name``."""
    return name.upper() if name in UNPREFIXED else PREFIX + name.upper()


class Settings(BaseModel):
    """All settings. Each attribute is one environment variable: ``variable`` says which."""

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
        default=SecretStr(""), description="Redis, the cache that servers share. Needed by the roles api and cache."
    )
    kafka_bootstrap_servers: BootstrapServers = Field(
        default="", description="Kafka brokers to begin with. Needed by the roles relay, cache and audit."
    )

    # The process.
    listen: Address = Field(default="127.0.0.1:50051", description="Where gRPC listens.")
    http_listen: Address = Field(
        default="127.0.0.1:9464", description="Where operations listen: metrics and health by HTTP."
    )
    workers: int = Field(default=1, ge=1, le=64, description="Processes that share the gRPC port.")
    pin_workers: bool = Field(
        default=False, description="Keep each worker on a core of its own. For cores that nobody else uses."
    )
    roles: ServerRoles = Field(default=frozenset(ServerRole), description="What this process does.")
    transport: Annotated[Literal["auto", "grpcio", "native"], AnyCase] = Field(
        default="auto",
        description="The gRPC server: grpcio, or the faster native one; auto is native on loopback, where it can be.",
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
        description="PEM of the authorities of client certificates: every client must have one, and it says who calls.",
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
        default=10, description="Seconds until a client that does not read a large answer is disconnected. grpcio only."
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
        default=0, description="Seconds after which a connection without calls is closed; 0 is never. grpcio only."
    )
    connection_age_seconds: ConnectionSeconds = Field(
        default=0,
        description="Seconds after which clients must connect anew, which spreads them; 0 is never. grpcio only.",
    )

    # PostgreSQL.
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
    redis_timeout_seconds: Seconds = Field(
        default=0.05, description="Seconds that one operation on Redis may take; later it counts as a miss."
    )
    redis_prefix: KeyPrefix = Field(default="pointsman", description="What every key in Redis begins with.")
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

    # Kafka.
    kafka_topic: Topic = Field(default="route-events", description="Topic of the changes.")
    kafka_partitions: int = Field(
        default=12, ge=1, le=10_000, description="Partitions of the topic when it is created."
    )
    kafka_replication_factor: int = Field(
        default=1, ge=1, le=16, description="Replicas of the topic when it is created."
    )
    kafka_message_timeout_seconds: Seconds = Field(
        default=30, description="Seconds until a message that no broker accepts has failed."
    )
    relay_batch: int = Field(default=500, ge=1, le=10_000, description="Most changes that the relay publishes at once.")

    _sources: dict[str, SettingSource] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        problems = list(_contradictions(self))
        if problems:
            raise ValueError("\n".join(problems))
        return self

    @classmethod
    def merge(cls, layers: Mapping[SettingSource, Mapping[str, object]]) -> Self:
        """Build settings from layers of attribute values, of which later ones win. Raises SettingsError."""
        values: dict[str, Any] = {}
        sources: dict[str, SettingSource] = {}
        for source, layer in layers.items():
            values.update(layer)
            sources.update(dict.fromkeys(layer, source))
        try:
            settings = cls(**values)
        except ValidationError as error:
            # Not chained: pydantic's error holds the values, the secret ones too.
            raise SettingsError(_explain(error, sources)) from None
        settings._sources = sources
        return settings

    @property
    def authenticates(self) -> bool:
        """Whether callers must show who they are."""
        return bool(self.jwt_issuer or self.api_keys or self.tls_client_ca_file)

    def require(self, roles: Collection[str] | None = None) -> None:
        """Raise SettingsError unless every engine that ``roles`` need is set; by default, the roles of the process.

        PostgreSQL is always needed: ``require(())`` asks for it alone.
        """
        wanted = self.roles if roles is None else roles
        problems = [
            f"{variable(name)} is not set, and {reason}: set it to {example}, "
            "or run `pointsman-server dev`, which brings its own"
            for name, needed_by, reason, example in _ENGINES
            if not getattr(self, name) and (not needed_by or needed_by & set(wanted))
        ]
        if problems:
            raise SettingsError(problems)

    @property
    def insecure(self) -> dict[str, bool]:
        """What lets others than this machine in: ``anonymous``, without authentication; ``plaintext``, without TLS."""
        beyond = ServerRole.API in self.roles and not is_loopback(host_and_port(self.listen)[0])
        return {"anonymous": beyond and not self.authenticates, "plaintext": beyond and not self.tls_cert_file}

    def require_secure(self) -> None:
        """Raise SettingsError when gRPC is insecure, and the settings do not say that it may be."""
        problems = [
            f"POINTSMAN_LISTEN ({self.listen}) is beyond loopback, and {lacking}: {remedy}, or allow it by "
            f"{variable(f'allow_{what}')}=true or `serve --allow-{what}`"
            for what, lacking, remedy in _SECURITY
            if self.insecure[what] and not getattr(self, f"allow_{what}")
        ]
        if problems:
            raise SettingsError(problems)

    def with_engines(self, urls: Mapping[str, str]) -> Self:
        """Copy the settings, with the engines (attribute to URL) that this process started itself."""
        layers: dict[SettingSource, dict[str, object]] = {"default": {}, "environment": {}, "flag": {}, "embedded": {}}
        for name in self.model_fields_set:
            layers[self._sources.get(name, "default")][name] = getattr(self, name)
        layers["embedded"] |= urls
        return self.merge(layers)

    def as_environ(self) -> dict[str, str]:
        """Give the variables that make ``load`` build the same settings in a process of ours.

        It holds the secrets in clear: hand it to a child process, and never print it.
        """
        return {variable(name): _text(getattr(self, name)) for name in sorted(self.model_fields_set)}

    def effective(self) -> list["Effective"]:
        """Say what each setting is, and who set it. Passwords are masked."""
        return [
            Effective(variable(name), mask_credentials(_text(getattr(self, name))), self._sources.get(name, "default"))
            for name in type(self).model_fields
        ]


@dataclass(frozen=True, slots=True)
class Effective:
    """The value that one setting has, with passwords masked, and where it comes from."""

    variable: str
    value: str
    source: SettingSource


@dataclass(frozen=True, slots=True)
class Description:
    """One setting, for people."""

    variable: str
    allowed: str
    default: str
    description: str


# attribute · roles that need it, or none for always · why · what to set it to
_ENGINES: tuple[tuple[str, frozenset[str], str, str], ...] = (
    (
        "database_url",
        frozenset(),
        "PostgreSQL is always needed",
        "postgresql://user:password@host:5432/database",
    ),
    (
        "redis_url",
        frozenset({ServerRole.API, ServerRole.CACHE}),
        "the roles api and cache need Redis",
        "redis://:password@host:6379/0",
    ),
    (
        "kafka_bootstrap_servers",
        frozenset({ServerRole.RELAY, ServerRole.CACHE, ServerRole.AUDIT}),
        "the roles relay, cache and audit need Kafka",
        "host:9092",
    ),
)


# what · what is lacking · what to set
_SECURITY: tuple[tuple[str, str, str], ...] = (
    (
        "anonymous",
        "anybody may call",
        "turn authentication on by POINTSMAN_JWT_ISSUER, POINTSMAN_API_KEYS or POINTSMAN_TLS_CLIENT_CA_FILE",
    ),
    (
        "plaintext",
        "what is sent can be read and changed on its way",
        "turn TLS on by POINTSMAN_TLS_CERT_FILE and POINTSMAN_TLS_KEY_FILE",
    ),
)


def load(environ: Mapping[str, str] | None = None, overrides: Mapping[str, object] | None = None) -> Settings:
    """Build the settings: ``overrides`` (attribute to value; None is no override) over ``environ`` over defaults.

    Without ``environ`` this reads the environment of the process. An empty variable counts as not set.
    Raises SettingsError, which names every problem.
    """
    environ = os.environ if environ is None else environ
    flags = {name: value for name, value in (overrides or {}).items() if value is not None}
    problems = _unknown_variables(environ)
    try:
        settings = Settings.merge({"environment": _from_environ(environ), "flag": flags})
    except SettingsError as error:
        problems += error.problems
    if problems:
        raise SettingsError(problems)
    return settings


def describe() -> list[Description]:
    """Describe every setting, in the order of the model."""
    return [
        Description(variable(name), _allowed(field), _text(field.default), field.description or "")
        for name, field in Settings.model_fields.items()
    ]


def markdown() -> str:
    """Render the table of settings of docs/reference/settings.md."""
    rows = ["| variable | default | allowed | what it is |", "|---|---|---|---|"]
    rows += [
        f"| `{row.variable}` | {f'`{row.default}`' if row.default else ''} | {row.allowed} | {row.description} |"
        for row in describe()
    ]
    return "\n".join(rows) + "\n"


def _from_environ(environ: Mapping[str, str]) -> dict[str, object]:
    names = {variable(name): name for name in Settings.model_fields}
    return {names[key]: value for key, value in environ.items() if key in names and value.strip()}


def _unknown_variables(environ: Mapping[str, str]) -> list[str]:
    known = {variable(name) for name in Settings.model_fields} | OF_OTHERS
    return [
        f"{name} is not a setting{_known_name_near(name, known)}"
        for name, value in sorted(environ.items())
        if name.startswith(PREFIX) and name not in known and not _is_of_others(name, value)
    ]


def _known_name_near(name: str, known: Iterable[str]) -> str:
    # The prefix is not compared: nearly all names share it, so nearly all would be near.
    short_names = {other.removeprefix(PREFIX): other for other in known}
    near = nearest(name.removeprefix(PREFIX), short_names)
    if near is None:
        return ": remove it; `python -m pointsman_server.config.settings` lists the settings"
    return f": did you mean {short_names[near]}?"


def _is_of_others(name: str, value: str) -> bool:
    if name.startswith(INTERNAL_PREFIX) or SERVICE_LINK.fullmatch(name):
        return True
    return name.endswith("_PORT") and bool(SERVICE_LINK_VALUE.fullmatch(value))


def _contradictions(settings: Settings) -> Iterator[str]:
    """Find settings that are fine alone but not together."""
    if settings.database_pool_max < settings.database_pool_min:
        yield (
            f"POINTSMAN_DATABASE_POOL_MAX ({settings.database_pool_max}) must be at least "
            f"POINTSMAN_DATABASE_POOL_MIN ({settings.database_pool_min})"
        )
    if settings.store_load_concurrency >= settings.database_pool_max:
        yield (
            f"POINTSMAN_STORE_LOAD_CONCURRENCY ({settings.store_load_concurrency}) must be less than "
            f"POINTSMAN_DATABASE_POOL_MAX ({settings.database_pool_max}): writes must always find a connection"
        )
    for name in ("cache_negative_ttl_seconds", "cache_local_ttl_seconds"):
        if getattr(settings, name) > settings.cache_ttl_seconds:
            yield (
                f"{variable(name)} ({getattr(settings, name):g}) must be at most "
                f"POINTSMAN_CACHE_TTL_SECONDS ({settings.cache_ttl_seconds:g})"
            )
    yield from _contradictory_workers(settings)
    yield from _contradictory_access(settings)
    yield from _contradictory_limits(settings)


def _contradictory_limits(settings: Settings) -> Iterator[str]:
    if settings.rate_shared_writes and not (settings.rate_identity_writes or settings.rate_tenant_writes):
        yield (
            "POINTSMAN_RATE_SHARED_WRITES needs a rate to share: set POINTSMAN_RATE_IDENTITY_WRITES or "
            "POINTSMAN_RATE_TENANT_WRITES"
        )
    if settings.transport == "native" and (settings.connection_idle_seconds or settings.connection_age_seconds):
        yield (
            "POINTSMAN_CONNECTION_IDLE_SECONDS and POINTSMAN_CONNECTION_AGE_SECONDS need POINTSMAN_TRANSPORT grpcio or "
            "auto: the native one never closes a connection by age"
        )


def _contradictory_workers(settings: Settings) -> Iterator[str]:
    port = host_and_port(settings.listen)[1]
    if port and settings.listen == settings.http_listen:
        yield f"POINTSMAN_HTTP_LISTEN must differ from POINTSMAN_LISTEN ({settings.listen})"
    if not port and settings.workers > 1:
        yield "POINTSMAN_LISTEN must name a port other than 0 when POINTSMAN_WORKERS is more than 1: workers share it"
    if settings.pin_workers and settings.workers == 1:
        yield "POINTSMAN_PIN_WORKERS needs POINTSMAN_WORKERS to be 2 or more"
    if settings.pin_workers and not hasattr(os, "sched_setaffinity"):
        yield "POINTSMAN_PIN_WORKERS needs Linux"


def _contradictory_access(settings: Settings) -> Iterator[str]:
    together = ("tls_cert_file", "tls_key_file")
    yield from _missing_of(settings, "tls_cert_file", together)
    yield from _missing_of(settings, "tls_key_file", together)
    yield from _missing_of(settings, "tls_client_ca_file", together)
    if settings.transport == "native" and settings.tls_cert_file:
        yield "POINTSMAN_TRANSPORT native has no TLS (POINTSMAN_TLS_CERT_FILE is set): use grpcio or auto"
    if settings.policy_file and not settings.authenticates:
        # Else whoever wrote the policy would believe that it is in force.
        ways = "POINTSMAN_JWT_ISSUER, POINTSMAN_API_KEYS or POINTSMAN_TLS_CLIENT_CA_FILE"
        yield f"POINTSMAN_POLICY_FILE is set, and nothing says who calls: set {ways}"
    yield from _contradictory_tokens(settings)


def _contradictory_tokens(settings: Settings) -> Iterator[str]:
    yield from _missing_of(settings, "jwt_issuer", ("jwt_audience",))
    for name in ("jwt_audience", "jwt_jwks_url", "jwt_jwks_file", "jwt_grants_claim"):
        yield from _missing_of(settings, name, ("jwt_issuer",))
    if settings.jwt_jwks_url and settings.jwt_jwks_file:
        yield "POINTSMAN_JWT_JWKS_URL and POINTSMAN_JWT_JWKS_FILE exclude each other"
    if settings.jwt_jwks_url.startswith("http://") and not settings.allow_plaintext:
        host = urlsplit(settings.jwt_jwks_url).hostname
        if not is_loopback(host or ""):
            yield (
                "POINTSMAN_JWT_JWKS_URL must be https:// beyond loopback: who changes the keys on their way signs "
                "tokens (POINTSMAN_ALLOW_PLAINTEXT=true takes it all the same, as behind a mesh)"
            )
    if settings.jwt_issuer and not (settings.jwt_jwks_url or settings.jwt_jwks_file):
        yield "POINTSMAN_JWT_ISSUER needs the keys of the issuer: set POINTSMAN_JWT_JWKS_URL or POINTSMAN_JWT_JWKS_FILE"


def _missing_of(settings: Settings, name: str, needed: Iterable[str]) -> Iterator[str]:
    """Say which of ``needed`` are not set though ``name`` is."""
    for other in needed if getattr(settings, name) else ():
        if not getattr(settings, other):
            yield f"{variable(name)} is set, and {variable(other)} is not: set both"


def _explain(error: ValidationError, sources: Mapping[str, SettingSource]) -> list[str]:
    """Turn pydantic's errors into lines that name the variable and say what to do."""
    lines: list[str] = []
    for problem in error.errors(include_url=False):
        if not problem["loc"]:
            lines += str(problem["ctx"]["error"]).splitlines()
            continue
        name = str(problem["loc"][0])
        given = " (given as a flag)" if sources.get(_attribute(name)) == "flag" else ""
        lines.append(f"{_label(name)}{given} {_words(problem)}")
    return lines


def _attribute(loc: str) -> str:
    return next((name for name in Settings.model_fields if loc in (name, variable(name))), loc)


def _label(loc: str) -> str:
    name = _attribute(loc)
    return variable(name) if name in Settings.model_fields else name


def _words(problem: ErrorDetails) -> str:
    context = problem.get("ctx", {})
    if problem["type"] == "value_error":
        return str(context["error"])
    field = Settings.model_fields.get(_attribute(str(problem["loc"][0])))
    if field is None:
        return "is not a setting"
    rule = f"must be {_allowed(field)}"
    if field.annotation is SecretStr:
        return rule
    given = problem["input"]
    hint = did_you_mean(str(given), map(str, get_args(field.annotation))) if problem["type"] == "literal_error" else ""
    return f"{rule}, not {given!r}{hint}"


def _allowed(field: FieldInfo) -> str:
    """Say what a value may be."""
    for item in field.metadata:
        if isinstance(item, Allowed):
            return item.text
    if get_origin(field.annotation) is Literal:
        return " or ".join(get_args(field.annotation))
    if field.annotation is Path:
        return "a path"
    if field.annotation is bool:
        return "true or false"
    if field.annotation is str:
        return "text"
    return f"{'a whole number' if field.annotation is int else 'a number'}{_bounds(field)}"


def _bounds(field: FieldInfo) -> str:
    above = next((f" above {bound.gt}" for bound in field.metadata if isinstance(bound, Gt)), "")
    least = next((f", {bound.ge}" for bound in field.metadata if isinstance(bound, Ge)), "")
    most = next(f"{bound.le}" for bound in field.metadata if isinstance(bound, Le))
    return f"{least} to {most}" if least else f"{above}, at most {most}"


def _text(value: object) -> str:
    """Write ``value`` as the environment would hold it."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(value)
    if isinstance(value, frozenset):
        return ",".join(role for role in ServerRole if role in value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


if __name__ == "__main__":
    print(markdown(), end="")
