"""Judge the engines by how they are set up: what works today and will lose or slow down something one day."""

from collections.abc import Iterator

from pointsman_server.adapters.kafka.topics.durability import Durability
from pointsman_server.adapters.postgres.inspection import PostgresFacts
from pointsman_server.adapters.redis.diagnostics.inspection import RedisFacts
from pointsman_server.diagnosis.finding import Finding, Severity, error, ok, warning

FULL_SHARE = 0.8


def judge_postgres(facts: PostgresFacts, connections: int, processes: str) -> Iterator[Finding]:
    """``connections``: how many this server may open; ``processes`` says by which settings."""
    found = list(_postgres_problems(facts, connections, processes))
    room = facts.max_connections - facts.reserved_connections
    in_use = f"{facts.connections} of {room} connections in use"
    yield from found or [ok("postgres", f"version {facts.version}, durable, {in_use}")]


def _postgres_problems(facts: PostgresFacts, connections: int, processes: str) -> Iterator[Finding]:
    subject = "postgres"
    for setting, loss in (
        ("fsync", "a crash of its machine may corrupt the database"),
        ("full_page_writes", "a crash of its machine may corrupt the database"),
        ("synchronous_commit", "a crash loses writes that were answered OK"),
    ):
        if getattr(facts, setting) == "off":
            yield error(subject, f"{setting} is off: {loss}", f"set {setting} = on in postgresql.conf", works="all")
    if facts.standby:
        yield error(
            subject,
            "DATABASE_URL leads to a standby, which takes no writes",
            "name the primary, or several hosts with target_session_attrs=read-write",
            works="reads",
        )
    room = facts.max_connections - facts.reserved_connections
    if facts.connections > FULL_SHARE * room:
        yield warning(
            subject,
            f"{facts.connections} of {room} connections are in use",
            "raise max_connections, or put PgBouncer in between",
        )
    if connections > room:
        yield warning(
            subject,
            f"this server may open {connections} connections ({processes}), and PostgreSQL takes {room} of all servers",
            "lower POINTSMAN_DATABASE_POOL_MAX, or raise max_connections",
        )


def judge_redis(facts: RedisFacts) -> Iterator[Finding]:
    """Judge one Redis server."""
    found = list(_redis_problems(facts))
    yield from found or [ok(facts.name, f"version {facts.version}, a master, nothing evicted")]


def _redis_problems(facts: RedisFacts) -> Iterator[Finding]:
    if facts.role != "master":
        yield error(
            facts.name,
            f"is a {facts.role}, which takes no writes: nothing is cached there",
            "lead REDIS_URL to the master, or use Sentinel or Redis Cluster",
            works="all reads and writes, from the local caches and PostgreSQL",
        )
    if facts.max_memory and facts.policy == "noeviction":
        yield warning(
            facts.name,
            f"refuses writes when its {facts.max_memory >> 20} MiB are full (maxmemory-policy noeviction)",
            "set maxmemory-policy to allkeys-lru: what Pointsman keeps there may go",
        )
    if facts.evicted:
        yield warning(
            facts.name,
            f"evicted {facts.evicted} keys since it started: more reads reach PostgreSQL",
            f"give it more memory than {facts.max_memory >> 20} MiB, or a Redis of its own",
        )


def judge_topic(name: str, durability: Durability | None) -> Iterator[Finding]:
    """Judge a topic. ``durability``: None where the brokers do not say."""
    subject = f"topic {name}"
    if durability is None:
        yield ok(subject, "how many replicas it has is not known")
        return
    found = [Finding(Severity.WARNING, subject, text) for text in durability.warnings()]
    if durability.brokers == 1:
        found.append(warning(subject, "lies on the only broker, whose disk is the only copy", "run three brokers"))
    yield from found or [ok(subject, f"{durability.replicas} replicas on {durability.brokers} brokers, all in sync")]
