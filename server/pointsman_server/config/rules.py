"""What must hold between settings, and what a command or a role needs to be set."""

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pointsman_server.config.kafka_rules import kafka_contradictions
from pointsman_server.config.names import variable
from pointsman_server.config.types import ServerRole, host_and_port, is_loopback

if TYPE_CHECKING:
    from pointsman_server.config.settings import Settings


class SettingsError(Exception):
    """The settings are wrong: one line for each problem. Never holds a secret."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


# attribute · roles that need it, or none for always · why · what to set it to. The role xds uses Redis and Kafka too
# where they are set, and does without.
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


# The gRPC ports, by the setting of each, and the role that listens there.
_PORTS = {"listen": ServerRole.API, "xds_listen": ServerRole.XDS}

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

# transport · attribute that has an effect on it alone · what to do on the other
_OF_ONE_TRANSPORT: tuple[tuple[str, str, str], ...] = (
    ("envoy", "cors_origins", "browsers need the transport envoy"),
    ("envoy", "max_heap_megabytes", "bound the memory of the process from outside"),
    ("grpcio", "client_ping_seconds", "pings are bounded by what a client leaves unread"),
)


def require(settings: "Settings", roles: Collection[str] | None = None) -> None:
    """Raise SettingsError unless every engine that ``roles`` need is set; by default, the roles of the process.

    PostgreSQL is always needed: ``require(settings, ())`` asks for it alone.
    """
    wanted = settings.roles if roles is None else roles
    problems = [
        f"{variable(name)} is not set, and {reason}: set it to {example}, "
        "or run `pointsman-server dev`, which brings its own"
        for name, needed_by, reason, example in _ENGINES
        if not getattr(settings, name) and (not needed_by or needed_by & set(wanted))
    ]
    if problems:
        raise SettingsError(problems)


def insecure(settings: "Settings") -> dict[str, bool]:
    """Say what lets others than this machine in: ``anonymous``, without authentication; ``plaintext``, without TLS."""
    exposed = bool(_exposed(settings))
    return {"anonymous": exposed and not settings.authenticates, "plaintext": exposed and not settings.tls_cert_file}


def _exposed(settings: "Settings") -> Sequence[str]:
    """Name the settings of the gRPC ports that other machines can reach."""
    listening = (name for name, role in _PORTS.items() if role in settings.roles)
    return [name for name in listening if not is_loopback(host_and_port(getattr(settings, name))[0])]


def require_secure(settings: "Settings") -> None:
    """Raise SettingsError when gRPC is insecure, and the settings do not say that it may be."""
    problems = [
        f"{variable(name)} ({getattr(settings, name)}) is beyond loopback, and {lacking}: {remedy}, or allow it by "
        f"{variable(f'allow_{what}')}=true or `serve --allow-{what}`"
        for name in _exposed(settings)
        for what, lacking, remedy in _SECURITY
        if insecure(settings)[what] and not getattr(settings, f"allow_{what}")
    ]
    if problems:
        raise SettingsError(problems)


def ignored(settings: "Settings", transport: str) -> dict[str, str]:
    """Return the variables that are set and without effect on ``transport``, and what to do."""
    return {
        variable(name): remedy
        for only_on, name, remedy in _OF_ONE_TRANSPORT
        if only_on != transport and name in settings.sources and getattr(settings, name)
    }


def contradictions(settings: "Settings") -> list[str]:
    """Find settings that are fine alone but not together, and say in one line each what is wrong."""
    return [
        *_contradictory_sizes(settings),
        *_contradictory_workers(settings),
        *_contradictory_access(settings),
        *_contradictory_limits(settings),
        *kafka_contradictions(settings),
        *_contradictory_redis(settings),
    ]


def _contradictory_sizes(settings: "Settings") -> Iterator[str]:
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


def _contradictory_limits(settings: "Settings") -> Iterator[str]:
    if settings.rate_shared_writes and not (settings.rate_identity_writes or settings.rate_tenant_writes):
        yield (
            "POINTSMAN_RATE_SHARED_WRITES needs a rate to share: set POINTSMAN_RATE_IDENTITY_WRITES or "
            "POINTSMAN_RATE_TENANT_WRITES"
        )


def _contradictory_redis(settings: "Settings") -> Iterator[str]:
    scheme = settings.cache_url.partition("://")[0]
    yield from _missing_of(settings, "redis_cert_file", ("redis_key_file",))
    yield from _missing_of(settings, "redis_key_file", ("redis_cert_file",))
    if not scheme.startswith("rediss"):
        for name in ("redis_ca_file", "redis_cert_file"):
            if getattr(settings, name):
                yield f"{variable(name)} needs TLS: REDIS_URL must begin with rediss"
    if not scheme.endswith("+sentinel"):
        for name in ("redis_sentinel_user", "redis_sentinel_password"):
            if getattr(settings, name):
                yield f"{variable(name)} needs Sentinel: REDIS_URL must begin with redis+sentinel:// or rediss+sentinel://"


def _contradictory_workers(settings: "Settings") -> Iterator[str]:
    port = host_and_port(settings.listen)[1]
    if port and settings.listen == settings.http_listen:
        yield f"POINTSMAN_HTTP_LISTEN must differ from POINTSMAN_LISTEN ({settings.listen})"
    if ServerRole.XDS in settings.roles:
        yield from _contradictory_xds(settings)
    if not port and settings.workers > 1:
        yield "POINTSMAN_LISTEN must name a port other than 0 when POINTSMAN_WORKERS is more than 1: workers share it"
    if settings.pin_workers and settings.workers == 1:
        yield "POINTSMAN_PIN_WORKERS needs POINTSMAN_WORKERS to be 2 or more"
    if settings.pin_workers and not hasattr(os, "sched_setaffinity"):
        yield "POINTSMAN_PIN_WORKERS needs Linux"


def _contradictory_xds(settings: "Settings") -> Iterator[str]:
    port = host_and_port(settings.xds_listen)[1]
    for name in ("listen", "http_listen"):
        if port and settings.xds_listen == getattr(settings, name):
            yield f"POINTSMAN_XDS_LISTEN must differ from {variable(name)} ({settings.xds_listen})"
    if not port and settings.workers > 1:
        yield (
            "POINTSMAN_XDS_LISTEN must name a port other than 0 when POINTSMAN_WORKERS is more than 1: workers share it"
        )


def _contradictory_access(settings: "Settings") -> Iterator[str]:
    together = ("tls_cert_file", "tls_key_file")
    yield from _missing_of(settings, "tls_cert_file", together)
    yield from _missing_of(settings, "tls_key_file", together)
    yield from _missing_of(settings, "tls_client_ca_file", together)
    if settings.policy_file and not settings.authenticates:
        # Otherwise the policy would seem to be in force.
        ways = "POINTSMAN_JWT_ISSUER, POINTSMAN_API_KEYS or POINTSMAN_TLS_CLIENT_CA_FILE"
        yield f"POINTSMAN_POLICY_FILE is set, and authentication is off: set {ways}"
    yield from _contradictory_tokens(settings)


def _contradictory_tokens(settings: "Settings") -> Iterator[str]:
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


def _missing_of(settings: "Settings", name: str, needed: Iterable[str]) -> Iterator[str]:
    """Say which of ``needed`` are not set though ``name`` is."""
    for other in needed if getattr(settings, name) else ():
        if not getattr(settings, other):
            yield f"{variable(name)} is set, and {variable(other)} is not: set both"
