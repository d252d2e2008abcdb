"""Judge a running server by its health document and its metrics."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pointsman_server.diagnosis.finding import Finding, error, ok, warning

DAY_SECONDS = 86_400.0
CERTIFICATE_DAYS = 14.0
SKEW_SECONDS = 1.0
CONSUMER_LAG = 10_000
FEED_LAG = 1_000
XDS_AGE_SECONDS = 60.0
XDS_STREAMS_SHARE = 0.8

# By the name of a dependency in the health document: what still works without it, and what to do.
DEPENDENCIES: Mapping[str, tuple[str, str]] = {
    "postgres": (
        "reads that a cache can answer: up to 1 s old from the process, 5 min from Redis; xDS; no writes",
        "see that PostgreSQL runs and takes connections from here; the server recovers by itself",
    ),
    "redis": (
        "all reads and writes, from the local caches and PostgreSQL, which gets more queries",
        "see that Redis runs, takes writes, and lets this user run scripts; it fills by itself",
    ),
    "replicas": (
        "all reads and writes: the other replicas and the primary answer in their place",
        "see that the replicas run and follow; they are used again by themselves",
    ),
    "writes": (
        "all reads",
        "see which PostgreSQL server is the primary, and that DATABASE_URL leads there",
    ),
    "kafka": (
        "all reads and writes; changes wait in PostgreSQL and arrive in order later",
        "see that the brokers run, that the topic is there, and that this client may use it",
    ),
    "relay": (
        "all reads and writes; consumers of Kafka and the audit log are behind",
        "look at `a dependency is down` and at what the relay logs; it goes on by itself",
    ),
    "audit": (
        "all reads and writes; changes wait in Kafka for the audit log",
        "see that the database of POINTSMAN_AUDIT_DATABASE_URL runs; nothing is lost meanwhile",
    ),
}


@dataclass(frozen=True, slots=True)
class Sample:
    """A line of /metrics."""

    name: str
    labels: Mapping[str, str]
    value: float


def judge(health: Mapping[str, Any], samples: Sequence[Sample], now: float) -> list[Finding]:
    """Judge what ``/health/ready`` and ``/metrics`` said at ``now`` (seconds since 1970)."""
    return [*_readiness(health), *_dependencies(health), *_metrics(samples, now)]


def _readiness(health: Mapping[str, Any]) -> Iterator[Finding]:
    if health.get("draining"):
        yield warning("server", "is stopping: it refuses new calls", "wait for its replacement, or start it again")
    elif waiting := health.get("waiting_for"):
        yield error("server", f"is not ready: it waits for {waiting}", "see what its log says of it", works="nothing")
    elif health.get("status") == "not ready":
        yield error("server", "is not ready: it cannot answer reads", "mend what is down below", works="nothing")
    else:
        yield ok("server", f"is {health.get('status', 'there')}")


def _dependencies(health: Mapping[str, Any]) -> Iterator[Finding]:
    for name, state in health.get("dependencies", {}).items():
        if state["up"]:
            yield ok(name, "is up")
            continue
        works, remedy = DEPENDENCIES.get(name, ("", ""))
        yield error(name, state["detail"], remedy, works=works, since=state.get("since", ""))


def _metrics(samples: Sequence[Sample], now: float) -> Iterator[Finding]:
    values = _Values(samples)
    yield from _caches(values)
    yield from _progress(values)
    yield from _xds(values)
    yield from _access(values, now)
    if (skew := values.highest("pointsman_clock_skew_seconds")) > SKEW_SECONDS:
        yield warning(
            "clock",
            f"differs from PostgreSQL's by {skew:.1f} s: JWTs, API keys and ages are judged wrongly",
            "synchronise the clocks of both machines (chrony, ntpd)",
        )
    if restarts := values.total("pointsman_worker_restarts_total"):
        yield warning(
            "workers", f"{restarts:.0f} died and were replaced", "look for `worker` in the log, and at the memory limit"
        )


def _caches(values: "_Values") -> Iterator[Finding]:
    if values.highest("pointsman_cache_breaker_open"):
        yield error(
            "cache",
            "passes Redis by, because operations failed in a row",
            "mend Redis; one try a second finds out",
            works="reads, from the local caches and PostgreSQL",
        )
    if values.highest("pointsman_store_restored"):
        yield error(
            "epoch",
            "PostgreSQL was restored to an older state",
            "run `pointsman-server restore`, once",
            works="reads that a cache can answer",
        )
    if waiting := values.total("pointsman_store_pool_waiting"):
        yield warning(
            "pool",
            f"{waiting:.0f} operations wait for a connection to PostgreSQL",
            "look for slow queries; raise POINTSMAN_DATABASE_POOL_MAX if PostgreSQL has room",
        )
    if (lag := values.highest("pointsman_feed_lag_revisions")) > FEED_LAG:
        yield warning(
            "feed", f"is {lag:.0f} changes behind: caches and watchers are as well", "look at its CPU time, and Kafka"
        )


def _progress(values: "_Values") -> Iterator[Finding]:
    if (lag := values.highest("pointsman_relay_lag_seconds")) > 0 and (
        changes := values.highest("pointsman_relay_lag_revisions")
    ):
        yield warning("relay", f"{changes:.0f} changes wait for Kafka, the oldest for {lag:.0f} s", "see Kafka above")
    for consumer, lag in values.by("pointsman_consumer_lag_messages", "consumer").items():
        if lag > CONSUMER_LAG:
            yield warning(f"consumer {consumer}", f"is {lag:.0f} messages behind", "see its failures in the log")
    for consumer, count in values.by("pointsman_poison_messages_total", "consumer").items():
        if count:
            yield warning(
                f"consumer {consumer}",
                f"set {count:.0f} messages aside that are no change",
                "run `pointsman-server dead-letters list`",
            )


def _xds(values: "_Values") -> Iterator[Finding]:
    if (age := values.highest("pointsman_xds_table_age_seconds")) > XDS_AGE_SECONDS:
        yield warning(
            "xDS", f"its table may lack what changed in the last {age:.0f} s", "see PostgreSQL above; clients go on"
        )
    streams, limit = values.total("pointsman_xds_streams"), values.total("pointsman_xds_stream_limit")
    if streams > XDS_STREAMS_SHARE * limit > 0:
        yield warning("xDS", f"has {streams:.0f} of the {limit:.0f} streams that it takes", "add servers, or raise it")
    if refused := values.total("pointsman_xds_refusals_total"):
        yield warning(
            "xDS",
            f"clients refused {refused:.0f} responses since the start",
            "run `pointsman xds clients`: they go on with what they had",
        )
    if names := values.total("pointsman_xds_not_carried"):
        yield warning(
            "xDS",
            f"clients ask for {names:.0f} names with a live URL that they cannot be led to",
            "run `pointsman xds explain KEY` for those of `pointsman xds clients`",
        )
    if names := values.highest("pointsman_xds_collisions"):
        yield warning(
            "xDS", f"{names:.0f} names differ from others in case alone: Envoys are not led there", "rename them"
        )


def _access(values: "_Values", now: float) -> Iterator[Finding]:
    for name, end in values.by("pointsman_certificate_expiry_timestamp_seconds", "certificate").items():
        yield from certificate(name, end, now)
    for what, value in values.by("pointsman_insecure", "what").items():
        if value:
            yield warning(
                "security",
                f"this server listens beyond loopback and is {what}",
                "docs/security.md says how to close it",
            )


def certificate(name: str, end: float, now: float) -> Iterator[Finding]:
    """Judge the end of a certificate; both times in seconds since 1970."""
    days = (end - now) / DAY_SECONDS
    remedy = "renew it; servers read the file again by themselves"
    if days < 0:
        yield error(f"certificate {name}", f"ended {-days:.0f} days ago", remedy, works="open connections")
    elif days < CERTIFICATE_DAYS:
        yield warning(f"certificate {name}", f"ends in {days:.0f} days", remedy)
    else:
        yield ok(f"certificate {name}", f"ends in {days:.0f} days")


class _Values:
    def __init__(self, samples: Sequence[Sample]) -> None:
        self._samples = samples

    def total(self, name: str) -> float:
        return sum(sample.value for sample in self._samples if sample.name == name)

    def highest(self, name: str) -> float:
        return max((sample.value for sample in self._samples if sample.name == name), default=0.0)

    def by(self, name: str, label: str) -> dict[str, float]:
        found: dict[str, float] = {}
        for sample in self._samples:
            if sample.name == name and label in sample.labels:
                found[sample.labels[label]] = max(found.get(sample.labels[label], sample.value), sample.value)
        return found
