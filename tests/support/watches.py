"""Watch on a store of a test."""

from pointsman_server.events.watch.hub import WatchHub
from pointsman_server.events.watch.snapshots import Snapshots
from pointsman_server.events.watch.streams import WatchStreams
from pointsman_server.ports.store import RouteStore
from pointsman_server.rpc.watch import WatchMethod
from pointsman_server.runtime.fair_share import FairShare


def watch_method(store: RouteStore) -> WatchMethod:
    """Return the method on a hub that no feed reaches."""
    fair_share = FairShare()
    hub = WatchHub(fair_share)
    return WatchMethod(WatchStreams(hub, Snapshots(store, fair_share, hub.covers), store))
