"""Client: the API for threads."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from pointsman import chunks
from pointsman.chunks import Chunk, Importable
from pointsman.connection.tls import PathLike
from pointsman.keys import RouteKey, as_key
from pointsman.methods.change_sets import ChangeSetMethods
from pointsman.methods.selection import SelectionMethods
from pointsman.methods.traffic import TrafficMethods
from pointsman.results import (
    Activation,
    BatchResult,
    Change,
    Consistency,
    Existing,
    ImportResult,
    Resolution,
    Route,
)
from pointsman.rpc import operations, requests
from pointsman.rpc.requests import Moment
from pointsman.rpc.session import left_out, newer
from pointsman.rpc.streams import EventStream
from pointsman.rpc.trace_context import trace_metadata
from pointsman.v1.watch_pb2 import WatchRequest

if TYPE_CHECKING:
    from pointsman.near_cache.near_cache import NearCache
    from pointsman.near_cache.options import OnStale
    from pointsman.watchers import Propagation, Usage


class Client(SelectionMethods, TrafficMethods, ChangeSetMethods):
    """A connection to Pointsman. Make one, share it between threads, close it at the end (or use ``with``).

    - A key is a ``RouteKey`` or its text ``tenant/service/env/version``.
    - ``timeout`` is in seconds and bounds a call with all its retries; each call may have its own.
    - UNAVAILABLE is retried, and RESOURCE_EXHAUSTED after the wait that the server asks for, if the timeout allows.
      Mutations too: each carries a ``request_id``, so that it takes effect once.
    - No key goes back: a resolve that begins after an answer about a key was returned is never of an older revision
      of it, and sees every write that this client made before; whichever server answers. Nor does a select.
    - Every method raises a subclass of ``pointsman.PointsmanError``; what is not named at a method may come from
      all of them: InvalidArgument, Unauthenticated, PermissionDenied, ResourceExhausted, Unavailable,
      DeadlineExceeded, Internal.

    Args:
        target: a gRPC target, for example ``localhost:50051`` or ``dns:///pointsman.internal:443``.
        credentials: TLS as gRPC takes it, instead of the following; without any of them it is plaintext.
        token: a bearer token (a JWT or an API key), or a quick function that returns the current one.
        token_file: a file that holds the token; read again when it changes.
        tls: connect by TLS; any file of the next three implies it.
        ca_file: certificates in PEM to trust instead of the system's.
        cert_file: the certificate of this client in PEM, and what it is signed by. Read once.
        key_file: the private key of ``cert_file`` in PEM, not encrypted. Read once.
        timeout: the default timeout in seconds.
        max_attempts: how often a call is tried, 1 (never retried) to 5.
        remembered_keys: of how many keys the client remembers the revision that it saw, some 150 bytes each. Of
            more, the rest share one revision that answers must have reached: that costs the server's caches hits.
        options: further gRPC channel options; they win over the client's own.
    """

    def close(self) -> None:
        """Close the connection and the near-caches. Calls under way end as cancelled."""
        for near_cache in self._session.near_caches:
            near_cache.shut_down()
        super().close()

    def resolve(
        self,
        key: RouteKey | str,
        *,
        min_revision: int | None = None,
        epoch: str = "",
        consistency: Consistency = Consistency.MINIMIZE_LATENCY,
        timeout: float | None = None,
    ) -> Resolution:
        """Return the live route of ``key``, as of ``min_revision`` or later.

        None means: of what this client wrote, and saw of the key. 0 means: of whatever is nearest. ``epoch`` is
        what ``min_revision`` counts in, if known: of an epoch that is over it counts for nothing.
        Raises RouteNotFound, RouteInactive or RevisionNotReached.
        """
        name = as_key(key)
        request = requests.resolve(name, self._session.floor(name, min_revision, epoch), consistency)
        return self._call(operations.RESOLVE, request, timeout)

    def batch_resolve(
        self,
        keys: Iterable[RouteKey | str],
        *,
        min_revision: int | None = None,
        epoch: str = "",
        consistency: Consistency = Consistency.MINIMIZE_LATENCY,
        timeout: float | None = None,
    ) -> tuple[BatchResult, ...]:
        """Return one result per key, in the order of ``keys``; a key that cannot be resolved has its own error.

        Any number of keys: each 1,000 of them are one call, and ``timeout`` bounds all calls together.
        """
        floor = self._session.floor_of_all(min_revision, epoch)
        seconds_left = self._session.countdown(timeout)
        results: tuple[BatchResult, ...] = ()
        for request in requests.batch_resolve(keys, floor, consistency):
            found = self._call(operations.BATCH_RESOLVE, request, seconds_left())
            while rest := left_out(found):
                [more] = requests.batch_resolve(rest, floor, consistency)
                found = newer(found, self._call(operations.BATCH_RESOLVE, more, seconds_left()))
            for late in requests.batch_resolve(*self._session.again(found, min_revision), consistency):
                found = newer(found, self._call(operations.BATCH_RESOLVE, late, seconds_left()))
            results += found
        return results

    def cached(
        self,
        *,
        tenants: Iterable[str] | None = None,
        service: str = "",
        env: str = "",
        path: PathLike | None = None,
        max_stale: float = 30.0,
        on_stale: "OnStale" = "call",
        name: str = "",
    ) -> "NearCache":
        """Return a near-cache: the routes of ``tenants`` (None: of all) in this process, kept current by Watch.

        It begins when it is entered (``with``), read or waited for; until it is loaded, reads go to the server.

        Args:
            tenants: the tenants whose routes it has; reads of other keys go to the server.
            service: only routes of this service.
            env: only routes of this env.
            path: a file to start from when no server can be reached. One near-cache writes it; others may read it.
            max_stale: for how many seconds routes are served without hearing from a server that they are current.
            on_stale: what then: "call" asks the server, "serve" serves what there is, "raise" raises NearCacheStale.
            name: what watchers are listed as; by default the program and the host.

        Raises ValueError for arguments that make no sense.
        """
        from pointsman.near_cache.near_cache import NearCache
        from pointsman.near_cache.options import options

        chosen = options(tenants, service, env, path, max_stale, on_stale, name)
        ask = (self.resolve, self.select, self._session.timeout)
        near_cache = NearCache(chosen, self._near_cache_service(), self._leave, *ask)
        self._session.near_caches += (near_cache,)
        return near_cache

    def create(
        self,
        key: RouteKey | str,
        url: str,
        *,
        labels: Mapping[str, str] | None = None,
        active: bool = True,
        request_id: str = "",
        reason: str = "",
        timeout: float | None = None,
    ) -> Route:
        """Make a new route and return it. ``reason`` is for the history. Raises RouteExists.

        Give ``request_id`` to make a retry of your own safe too: the same id with the same arguments returns the
        first answer, for 24 hours. Raises RequestIdReused when the arguments differ. The same for every mutation.
        """
        request = requests.create(key, url, labels, active, request_id, reason)
        return self._call(operations.CREATE, request, timeout)

    def update(
        self,
        key: RouteKey | str,
        *,
        url: str | None = None,
        labels: Mapping[str, str] | None = None,
        expected_revision: int = 0,
        allow_missing: bool = False,
        request_id: str = "",
        reason: str = "",
        timeout: float | None = None,
    ) -> Route:
        """Change the URL, the labels (all of them at once) or both, and return the route; None changes nothing.

        ``allow_missing`` creates an absent route, active. Raises RouteNotFound, or RevisionMismatch when the route
        is not at ``expected_revision`` (0: any).
        """
        request = requests.update(key, url, labels, expected_revision, allow_missing, request_id, reason)
        return self._call(operations.UPDATE, request, timeout)

    def activate(
        self,
        key: RouteKey | str,
        *,
        expected_revision: int = 0,
        exclusive: bool = False,
        request_id: str = "",
        reason: str = "",
        timeout: float | None = None,
    ) -> Activation:
        """Make a route live. ``exclusive`` takes all other versions of its tenant/service/env out of service with it.

        Raises RouteNotFound, or RevisionMismatch when the route is not at ``expected_revision`` (0: any).
        """
        request = requests.activate(key, expected_revision, exclusive, request_id, reason)
        return self._call(operations.ACTIVATE, request, timeout)

    def deactivate(
        self,
        key: RouteKey | str,
        *,
        expected_revision: int = 0,
        if_unused_for: timedelta | None = None,
        request_id: str = "",
        reason: str = "",
        timeout: float | None = None,
    ) -> Route:
        """Take a route out of service and return it; it stays known.

        ``if_unused_for`` refuses it unless nobody has read the route for that long, by what all servers have counted.
        Raises RouteNotFound, or RevisionMismatch when the route is not at ``expected_revision`` (0: any); with
        ``if_unused_for`` also RouteInUse, naming the readers, UsageNotCounted and UsageUnavailable.
        """
        request = requests.deactivate(key, expected_revision, request_id, reason, if_unused_for)
        return self._call(operations.DEACTIVATE, request, timeout)

    def delete(
        self,
        key: RouteKey | str,
        *,
        expected_revision: int = 0,
        if_unused_for: timedelta | None = None,
        request_id: str = "",
        reason: str = "",
        timeout: float | None = None,
    ) -> int:
        """Remove a route and return the revision of the removal; its history stays. ``if_unused_for``: as above.

        Raises as ``deactivate`` does, and RouteInTraffic when the traffic names the version.
        """
        request = requests.delete(key, expected_revision, request_id, reason, if_unused_for)
        return self._call(operations.DELETE, request, timeout)

    def import_routes(
        self,
        routes: Iterable[Importable],
        *,
        existing: Existing = Existing.UPDATE,
        import_id: str = "",
        reason: str = "",
        concurrency: int = chunks.CONCURRENCY,
        done: Callable[[ImportResult], object] | None = None,
        timeout: float = chunks.TIMEOUT,
    ) -> ImportResult:
        """Create many routes, and change those that exist: some 6,500 a call, ``concurrency`` calls at once.

        Each call is done as a whole or not at all. ``import_id`` makes the import resumable for 24 hours: choose one,
        and after a failure import the same routes under it again; what was done already is then not done twice.
        ``done`` is called after each call with what it did. ``timeout`` bounds each call.

        Raises what the first call that failed did, with ``violations`` that count in ``routes``, once those that
        were under way have ended: InvalidArgument, RouteExists (``Existing.REFUSE`` alone), RevisionMismatch (where
        a route has an ``expected_revision``), and RequestIdReused.
        """
        total = ImportResult()
        calls: deque[Future[ImportResult]] = deque()
        with ThreadPoolExecutor(concurrency) as threads:
            for chunk in chunks.made(routes, existing, import_id, reason):
                calls.append(threads.submit(self.import_chunk, chunk, timeout))
                if len(calls) >= concurrency:
                    total = chunks.added(total, calls.popleft().result(), done)
            while calls:
                total = chunks.added(total, calls.popleft().result(), done)
        return total

    def import_chunk(self, chunk: Chunk, timeout: float = chunks.TIMEOUT) -> ImportResult:
        """Import one chunk, which ``pointsman.chunks`` made, in one call. Raises as ``import_routes`` does."""
        with chunk.named():
            return self._call(operations.IMPORT, chunk.request, timeout)

    def get(self, key: RouteKey | str, *, as_of: Moment | None = None, timeout: float | None = None) -> Route:
        """Return a route, active or not, always from the store: as it is now, or as it was at ``as_of``.

        ``as_of`` is a revision or an aware time. Raises RouteNotFound; with ``as_of`` also RevisionCompacted and
        RevisionInFuture.
        """
        return self._call(operations.get(as_of), requests.get(key, as_of), timeout)

    def list(
        self,
        *,
        tenant: str = "",
        service: str = "",
        env: str = "",
        active: bool | None = None,
        as_of: Moment | None = None,
        page_size: int = 0,
        timeout: float | None = None,
    ) -> Iterator[Route]:
        """Iterate over the routes that match, in the order of their keys; empty and None match any.

        ``as_of`` is as in ``get``; all pages are of the same moment.
        Pages of ``page_size`` (0: the server's choice, at most 1,000) are fetched as the iteration goes on, each
        within ``timeout``; so an error may come in the middle.
        """
        request = requests.list_routes(tenant, service, env, active, page_size, as_of)
        return self._pages(operations.list_routes(as_of), request, timeout)

    def changes(
        self,
        *,
        tenant: str = "",
        service: str = "",
        env: str = "",
        version: str = "",
        after_revision: int = 0,
        before_revision: int = 0,
        after_time: datetime | None = None,
        before_time: datetime | None = None,
        actor: str = "",
        newest_first: bool = False,
        page_size: int = 0,
        timeout: float | None = None,
    ) -> Iterator[Change]:
        """Iterate over history in the order of revisions; empty and 0 match any. Pages as ``list`` does.

        Both ``after_revision`` and ``before_revision`` exclude the revision itself. ``after_time`` excludes the time
        itself, ``before_time`` includes it; both must be aware.
        """
        request = requests.list_changes(
            tenant,
            service,
            env,
            version,
            after_revision,
            before_revision,
            actor,
            newest_first,
            page_size,
            after_time,
            before_time,
        )
        return self._pages(operations.list_changes(after_time, before_time), request, timeout)

    def get_propagation(
        self, revision: int, *, tenant: str = "", service: str = "", env: str = "", timeout: float | None = None
    ) -> "Propagation":
        """Return which watchers have applied ``revision``, of those that watch what matches; empty matches any."""
        request = requests.get_propagation(revision, tenant, service, env)
        return self._call(operations.GET_PROPAGATION, request, timeout)

    def get_usage(self, key: RouteKey | str, *, timeout: float | None = None) -> "Usage":
        """Return who has read ``key`` lately: callers of resolve, and near-caches."""
        return self._call(operations.GET_USAGE, requests.get_usage(key), timeout)

    def watch_events(self, request: WatchRequest) -> EventStream:
        """Open one stream of Watch, for a program that speaks its protocol itself: docs/watch.md.

        It is not resumed when it ends, and has no deadline.
        """
        token = self._session.bearer.token()
        metadata = ((("authorization", f"Bearer {token}"),) if token else ()) + trace_metadata()
        return EventStream(self._session, self._stub.Watch(request, metadata=metadata))
