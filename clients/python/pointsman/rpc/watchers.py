"""From the messages about watchers and readers to the values that the client returns."""

from datetime import UTC

from pointsman.v1 import propagation_pb2, usage_pb2
from pointsman.watchers import Propagation, Reader, Usage, WatcherProgress


def propagation_of(message: propagation_pb2.GetPropagationResponse) -> Propagation:
    """Return who has a revision."""
    behind = (
        WatcherProgress(
            watcher_id=watcher.watcher_id,
            name=watcher.name,
            address=watcher.address,
            subject=watcher.subject,
            applied_revision=watcher.applied_revision,
            watch_time=watcher.watch_time.ToDatetime(tzinfo=UTC),
        )
        for watcher in message.behind
    )
    return Propagation(message.watcher_count, message.applied_count, tuple(behind), message.all_servers)


def usage_of(message: usage_pb2.GetUsageResponse) -> Usage:
    """Return who reads a route."""
    readers = (
        Reader(reader.subject, reader.read_count, reader.last_read_time.ToDatetime(tzinfo=UTC))
        for reader in message.readers
    )
    return Usage(tuple(readers), message.window.ToTimedelta(), message.all_servers)
