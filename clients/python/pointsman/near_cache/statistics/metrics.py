"""The names of the metrics: the same in Prometheus and in OpenTelemetry. Fields are those of ``Statistics``."""

from collections.abc import Mapping

PREFIX = "pointsman_near_cache_"

GAUGES: Mapping[str, tuple[str, str]] = {
    "routes": ("routes", "Routes in the table."),
    "revision": ("revision", "The revision that the table has reached."),
    "age_seconds": ("age_seconds", "How long ago the table was last known to have everything."),
    "live": ("live", "1 while every watch is open and has everything."),
    "healthy": ("healthy", "1 while the table is loaded and not stale."),
}
COUNTERS: Mapping[str, tuple[str, str]] = {
    "reads": ("reads_total", "Reads that the table answered with a route that was not stale."),
    "absent": ("absent_total", "Reads that the table answered with RouteNotFound or RouteInactive."),
    "stale": ("stale_reads_total", "Reads that the table answered although it was stale."),
    "refused": ("refused_reads_total", "Reads that were refused because the table was stale."),
    "calls": ("calls_total", "Reads that went to the server."),
    "snapshots": ("snapshots_total", "Snapshots that were received."),
    "changes": ("changes_total", "Changes that were received."),
    "streams": ("streams_total", "Streams that were opened."),
    "stream_failures": ("stream_failures_total", "Streams that ended, or could not be opened."),
    "callback_failures": ("callback_failures_total", "Callbacks of on_change that raised."),
    "disk_writes": ("disk_writes_total", "Times that the table was written to disk."),
    "disk_failures": ("disk_failures_total", "Times that the table could not be written to disk or read from it."),
}
