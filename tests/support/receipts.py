"""The methods of receipts and usage, in memory."""

import time

from pointsman_server.events.receipts.receipts import Receipts
from pointsman_server.events.watch.hub import WatchHub
from pointsman_server.ports.store import Clock, RouteStore
from pointsman_server.reads.read_counts import ReadCounts
from pointsman_server.reads.usage import UsageRecorder
from pointsman_server.rpc.methods.receipts import ReceiptMethods
from pointsman_server.rpc.methods.usage import UsageMethods
from pointsman_server.runtime.fair_share import FairShare
from tests.support.fakes import MemoryStore
from tests.support.usage_log import MemoryUsageLog
from tests.support.watcher_registry import MemoryWatcherRegistry


def receipt_methods(store: RouteStore) -> ReceiptMethods:
    """Return the methods on a registry in memory."""
    registry = MemoryWatcherRegistry(time.monotonic)
    receipts = Receipts(WatchHub(FairShare()), registry, store.clock, lambda: Clock("", 0), server="a")
    return ReceiptMethods(receipts)


def usage_methods(counts: ReadCounts | None = None) -> UsageMethods:
    """Return the methods on a log in memory."""
    counts = counts or ReadCounts()
    return UsageMethods(UsageRecorder(counts, MemoryUsageLog(time.time), window=86_400), counts, MemoryStore().load)
