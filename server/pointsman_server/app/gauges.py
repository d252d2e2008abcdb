"""The gauges of ``/metrics`` that are set after each health check, and not where things happen."""

from pointsman_server.app.dependencies import Dependencies
from pointsman_server.app.roles import RunningRoles
from pointsman_server.ops.certificate_expiry import CertificateExpiry
from pointsman_server.ops.health_monitor import HealthMonitor
from pointsman_server.telemetry.metrics import Metrics


async def set_gauges(
    metrics: Metrics,
    monitor: HealthMonitor,
    dependencies: Dependencies,
    running: RunningRoles,
    certificates: CertificateExpiry | None = None,
) -> None:
    """Set the gauges of the dependencies, of those roles that run, and of the certificates if there are any."""
    for name, ends in certificates.times().items() if certificates else ():
        metrics.certificate_expiry.labels(name).set(ends)
    for state in monitor.states.values():
        metrics.up.labels(state.name).set(state.up)
    metrics.pool(dependencies.database.stats)
    for replica in dependencies.replicated.replicas if dependencies.replicated else ():
        metrics.replica_lag.labels(replica.address).set(replica.lag)
    metrics.cache_breaker_open.set(dependencies.cache.breaker_is_open)
    metrics.store_restored.set(bool(dependencies.epochs.lost))
    metrics.clock_skew.set(dependencies.checks.clock_skew)
    for name, consumer in running.consumers.items():
        metrics.consumer_lag.labels(name).set(await consumer.lag())
    if feed := running.feed:
        metrics.feed_revision.set(feed.revision)
        metrics.feed_lag.set(max(0, dependencies.checks.revision - feed.revision))
        metrics.feed_connected.set(feed.connected)
    if running.audit_backfill:
        metrics.audit_chain.set(running.audit_backfill.chained)
    if running.relay:
        metrics.relay_leader.set(running.relay.leader)
        metrics.relay_lag.set(dependencies.checks.relay_state.lag)
        metrics.relay_lag_seconds.set(dependencies.checks.relay_state.oldest_seconds)
