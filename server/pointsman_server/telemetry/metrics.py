"""Every metric of the server. Labels are bounded: no tenant, key or text of a caller ever becomes one.

The ``grpc_server_*`` names are those of go-grpc-middleware, so dashboards made for other servers work. With several
workers (``PROMETHEUS_MULTIPROC_DIR``) counters and histograms are summed; gauges say how they combine.
"""

import os
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector

from pointsman_server.telemetry.histogram import Histogram

FAST = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
SLOW = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

RPC = ("grpc_type", "grpc_service", "grpc_method")


class Metrics:
    """The metrics of one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        self.rpc_started = self._counter("grpc_server_started", "Calls started.", *RPC)
        self.rpc_handled = self._counter("grpc_server_handled", "Calls ended, by status code.", *RPC, "grpc_code")
        self.rpc_received = self._counter("grpc_server_msg_received", "Messages received.", *RPC)
        self.rpc_sent = self._counter("grpc_server_msg_sent", "Messages sent.", *RPC)
        self.rpc_seconds = self._histogram("grpc_server_handling_seconds", "Duration of calls.", FAST, *RPC)

        self.authentications = self._counter(
            "pointsman_authentications",
            "Credentials verified, by kind. Outcome: ok, the problem, limited or unavailable. "
            "A cached identity is not verified again.",
            "credential",
            "outcome",
        )
        self.denied = self._counter(
            "pointsman_denied", "Calls denied because the caller lacks the permission.", "permission"
        )
        self.access_renewals = self._counter(
            "pointsman_access_renewals",
            "Reloads of keys or policy (what). Outcome: ok, or failed: the previous one stays in force.",
            "what",
            "outcome",
        )
        self.insecure = self._gauge(
            "pointsman_insecure",
            "Whether this server listens beyond loopback without authentication (anonymous) or TLS (plaintext).",
            "livemax",
            "what",
        )
        self.transport = self._gauge(
            "pointsman_transport",
            "1 for the transport that serves gRPC, with the reason why it was chosen.",
            "livemax",
            "transport",
            "reason",
        )
        self.build = self._gauge("pointsman_build_info", "1 for the version that runs.", "livemax", "version")
        self.certificate_expiry = self._gauge(
            "pointsman_certificate_expiry_timestamp_seconds",
            "When the first certificate of a TLS file ends, in seconds since 1970: server or client_ca.",
            "livemin",
            "certificate",
        )

        self.resolves = self._counter(
            "pointsman_resolve_requests", "Keys resolved, by outcome: active, inactive, absent or failed.", "outcome"
        )
        self.resolve_seconds = self._histogram(
            "pointsman_resolve_seconds", "Duration of resolving, by the layer that answered.", FAST, "source"
        )
        self.selects = self._counter(
            "pointsman_select_requests",
            "Selections. Outcome: the rule that chose (split, fallback or only_active), ambiguous, absent (nothing to "
            "choose is active) or failed.",
            "outcome",
        )
        self.select_seconds = self._histogram(
            "pointsman_select_seconds", "Duration of selecting, by the layer that answered.", FAST, "source"
        )
        self.cache_lookups = self._counter(
            "pointsman_cache_lookups",
            "Cache lookups. Outcome: hit, negative (a hit that says absent), stale (below min_revision), miss.",
            "layer",
            "outcome",
        )
        self._lookups: dict[tuple[str, str], Counter] = {}
        self.staleness = self._histogram(
            "pointsman_cache_staleness_seconds",
            "How long a layer kept returning the previous heartbeat, by layer.",
            SLOW,
            "layer",
        )
        self.cache_errors = self._counter("pointsman_cache_errors", "Redis operations that failed or timed out.")
        self.cache_breaker_open = self._gauge(
            "pointsman_cache_breaker_open",
            "Whether reads pass Redis by, because operations failed in a row; one a second tries it.",
            "livemax",
        )

        self.rate_limited = self._counter(
            "pointsman_rate_limited", "Calls refused because a rate limit is exceeded, by limit: scope.kind.", "limit"
        )

        self.writes = self._counter(
            "pointsman_write_requests",
            "Mutations, by outcome: ok, refused (the caller's fault) or failed (ours).",
            "action",
            "outcome",
        )
        self.imported = self._counter(
            "pointsman_imported_routes", "Routes of imports, by outcome: created, updated or unchanged.", "outcome"
        )
        self.write_seconds = self._histogram("pointsman_write_seconds", "Duration of mutations.", SLOW, "action")

        self.store_queries = self._counter("pointsman_store_queries", "Operations on PostgreSQL.", "operation")
        self.store_errors = self._counter("pointsman_store_errors", "PostgreSQL operations that failed or timed out.")
        self.store_reads = self._counter(
            "pointsman_store_reads",
            "Reads of routes, of those servers that have replicas: by the one that answered, primary or replica.",
            "source",
        )
        self.replica_fallbacks = self._counter(
            "pointsman_store_replica_fallbacks",
            "Reads that the primary answered in place of a replica. Reason: down, busy, behind (too far), changed "
            "(what was read, since), ahead, or other (another history).",
            "reason",
        )
        self.replica_lag = self._gauge(
            "pointsman_store_replica_lag_revisions", "Changes that a replica lacks.", "livemax", "replica"
        )
        self.store_pool = self._gauge(
            "pointsman_store_pool_connections", "Connections of the pool.", "livesum", "state"
        )
        self.store_pool_waiting = self._gauge(
            "pointsman_store_pool_waiting", "Operations waiting for a connection.", "livesum"
        )
        self.store_pool_max = self._gauge(
            "pointsman_store_pool_max_connections", "Most connections that the pool opens.", "livesum"
        )
        self.store_restored = self._gauge(
            "pointsman_store_restored",
            "Whether PostgreSQL is behind what this server knows of it: it was restored to an older state.",
            "livemax",
        )
        self.clock_skew = self._gauge(
            "pointsman_clock_skew_seconds",
            "How far the clock of this server is from that of PostgreSQL.",
            "livemax",
        )

        self.feed_revision = self._gauge(
            "pointsman_feed_revision", "Revision up to which this server has applied every change.", "livemin"
        )
        self.feed_lag = self._gauge(
            "pointsman_feed_lag_revisions", "Changes that this server has not applied yet.", "livemax"
        )
        self.feed_connected = self._gauge(
            "pointsman_feed_connected", "Whether the feed reads from Kafka; else from PostgreSQL alone.", "livemin"
        )

        self.watchers = self._gauge("pointsman_watchers", "Streams of Watch that are open.", "livesum")
        self.watch_begun = self._counter(
            "pointsman_watch_begun",
            "How streams of Watch began: with a snapshot, or after a revision from memory (ring) or the history.",
            "source",
        )
        self.watch_snapshots = self._counter(
            "pointsman_watch_snapshots", "Snapshots of the table that were made; many streams may share one."
        )
        self.watch_change_sets = self._counter(
            "pointsman_watch_change_sets", "Change sets queued for a stream of Watch that they match."
        )
        self.watch_slow = self._counter(
            "pointsman_watch_slow", "Streams of Watch that were ended because their clients read too slowly."
        )
        self.watch_reports = self._counter("pointsman_watch_reports", "Reports of watchers of what they have applied.")

        self.xds_streams = self._gauge(
            "pointsman_xds_streams", "Streams of xDS clients that are open, by kind: grpc or envoy.", "livesum", "kind"
        )
        self.xds_stream_limit = self._gauge(
            "pointsman_xds_stream_limit",
            "Streams of xDS clients that are accepted: POINTSMAN_MAX_CONCURRENT_CALLS or POINTSMAN_MAX_CONNECTIONS.",
            "livesum",
        )
        self.xds_pushes = self._counter(
            "pointsman_xds_pushes", "Responses sent to xDS clients, by type of resource: LDS, RDS, CDS or EDS.", "type"
        )
        self.xds_refusals = self._counter(
            "pointsman_xds_refusals",
            "Responses that xDS clients refused (NACK), by type of resource; the log has the text of the client.",
            "type",
        )
        self.xds_ack_seconds = self._histogram(
            "pointsman_xds_ack_seconds",
            "How long xDS clients took to accept a response, by type of resource.",
            SLOW,
            "type",
        )
        self.xds_names = self._gauge("pointsman_xds_names", "Names that xDS clients ask for, each once.", "livesum")
        self.xds_routes = self._gauge("pointsman_xds_table_routes", "Routes in the table of xDS.", "livemax")
        self.xds_revision = self._gauge(
            "pointsman_xds_table_revision", "Revision up to which the table of xDS has every change.", "livemin"
        )
        self.xds_age = self._gauge(
            "pointsman_xds_table_age_seconds",
            "How long ago the table of xDS was last known to lack nothing; it is served all the same.",
            "livemax",
        )
        self.xds_collisions = self._gauge(
            "pointsman_xds_collisions",
            "Names that Envoy is not led to, because they differ from others in case alone.",
            "livemax",
        )
        self.xds_not_carried = self._gauge(
            "pointsman_xds_not_carried",
            "Names with a live URL that those who ask for them cannot be led to, by their kind: grpc or envoy.",
            "livesum",
            "kind",
        )

        self.usage_dropped = self._counter(
            "pointsman_usage_dropped", "Counts of reads that were dropped because a bound was reached."
        )

        self.events_published = self._counter(
            "pointsman_kafka_events_published", "Changes acknowledged by Kafka, by action.", "action"
        )
        self.events_failed = self._counter(
            "pointsman_kafka_events_failed", "Failed attempts to publish a change, by action.", "action"
        )
        self.relay_leader = self._gauge("pointsman_relay_leader", "Whether this server leads the relay.", "livemax")
        self.relay_lag = self._gauge("pointsman_relay_lag_revisions", "Changes not yet in Kafka.", "livemax")
        self.relay_lag_seconds = self._gauge(
            "pointsman_relay_lag_seconds", "Age of the oldest change that is not yet in Kafka.", "livemax"
        )
        self.consumed = self._counter("pointsman_consumed_changes", "Changes processed by a consumer.", "consumer")
        self.poison = self._counter(
            "pointsman_poison_messages", "Messages moved to the dead letters because they are not a change.", "consumer"
        )
        self.consumer_failures = self._counter(
            "pointsman_consumer_failures", "Batches that failed and are retried.", "consumer"
        )
        self.consumer_lag = self._gauge(
            "pointsman_consumer_lag_messages", "Messages not yet received.", "livesum", "consumer"
        )

        self.audit_chain = self._gauge(
            "pointsman_audit_chain_revision", "Revision up to which the audit log is complete and chained.", "livemax"
        )

        self.up = self._gauge("pointsman_dependency_up", "Whether a dependency answers.", "livemin", "dependency")
        self.ready = self._gauge("pointsman_ready", "Whether this server can answer reads.", "livemin")
        self.role = self._gauge("pointsman_role", "Whether this server has a role, for each role.", "livemax", "role")

        self.workers = self._gauge("pointsman_workers", "Worker processes that run.", "livesum")
        self.worker_restarts = self._counter(
            "pointsman_worker_restarts", "Workers that were started in the place of one that died."
        )
        self.event_loop_delay = self._histogram(
            "pointsman_event_loop_delay_seconds",
            "How late the event loop of a worker wakes a task, measured twice a second.",
            SLOW,
        )
        self.process_cpu = self._counter("process_cpu_seconds", "CPU time of all workers, user and system.")
        self.process_memory = self._gauge(
            "process_resident_memory_bytes",
            "Resident memory of each worker, by pid where there are several.",
            "liveall",
        )
        self.process_open_fds = self._gauge(
            "process_open_fds", "Open file descriptors of each worker, by pid where there are several.", "liveall"
        )
        self.process_max_fds = self._gauge(
            "process_max_fds", "Most file descriptors that a worker may open.", "livemin"
        )

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Return all metrics, those of every worker if there are several, and their media type.

        ``accept`` is the Accept field of the scraper: OpenMetrics for one that takes it, else the text format 0.0.4 of
        Prometheus.
        """
        encode, media_type = choose_encoder(accept)
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return encode(self.registry), media_type
        everyone = CollectorRegistry()
        MultiProcessCollector(everyone)  # type: ignore[no-untyped-call]
        return encode(everyone), media_type

    def looked_up(self, layer: str, outcome: str) -> None:
        """Count one cache lookup."""
        # Bound at first use: there are few, and every read calls this.
        counter = self._lookups.get((layer, outcome))
        if counter is None:
            counter = self._lookups[layer, outcome] = self.cache_lookups.labels(layer, outcome)
        counter.inc()

    def renewals(self, what: str) -> Callable[[bool], None]:
        """Return a callback that counts reloads of ``what``; bound now, so that no failure shows as zero."""
        ok, failed = self.access_renewals.labels(what, "ok"), self.access_renewals.labels(what, "failed")
        return lambda well: (ok if well else failed).inc()

    def limited(self, limit: str) -> None:
        """Count one call over ``limit``, the name of a limiter."""
        self.rate_limited.labels(limit).inc()

    def pool(self, stats: Callable[[], dict[str, int]]) -> None:
        """Set the gauges of the connection pool."""
        numbers = stats()
        available = numbers.get("pool_available", 0)
        self.store_pool.labels("idle").set(available)
        self.store_pool.labels("used").set(numbers.get("pool_size", 0) - available)
        self.store_pool_waiting.set(numbers.get("requests_waiting", 0))
        self.store_pool_max.set(numbers.get("pool_max", 0))

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(name, text, labels, buckets=buckets, registry=self.registry)

    def _gauge(self, name: str, text: str, mode: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry, multiprocess_mode=mode)  # type: ignore[arg-type]
