"""The threads of a near-cache: one for each watch, which reads its stream and writes the table."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import inf
from typing import Any, Protocol
from uuid import uuid4

import grpc

from pointsman.errors import PointsmanError
from pointsman.near_cache.statistics.counts import Counts
from pointsman.near_cache.table.entries import Known, entry_of
from pointsman.near_cache.table.table import Table
from pointsman.near_cache.table.view import View
from pointsman.near_cache.watch.protocol import Apply, Confirm, ProtocolViolation, Replace, WatchProtocol
from pointsman.rpc.statuses import error_from_call
from pointsman.v1.propagation_pb2 import ReportProgressRequest
from pointsman.v1.watch_pb2 import ResumeToken, Watcher, WatchRequest, WatchResponse

_LOG = logging.getLogger(__name__)
Metadata = tuple[tuple[str, str], ...]


class Stream(Protocol):
    """An open stream."""

    def __iter__(self) -> Iterator[WatchResponse]: ...

    def cancel(self) -> object: ...


class Service(Protocol):
    """What a follower calls. ``metadata`` may raise PointsmanError when there is no credential."""

    @property
    def generation(self) -> int:
        """The number of the connection."""
        ...

    def renew(self, generation: int) -> None:
        """Use another connection than that one."""

    def metadata(self) -> Metadata: ...

    def watch(self, request: WatchRequest, metadata: Metadata) -> Stream: ...

    def report_progress(self, request: ReportProgressRequest, metadata: Metadata) -> None:
        """Report, and do not wait for the response: a report that is lost is asked for again."""


@dataclass(frozen=True, slots=True)
class Events:
    """What a follower tells: after the table was written, and after a stream has ended."""

    on_written: Callable[[Replace[Any] | Apply | Confirm], None]
    on_ended: Callable[[Exception | None], None]


class Follower:
    """Keeps one view of the table current, in a thread of its own, from ``start`` to ``stop``."""

    def __init__(
        self,
        view: View,
        table: Table,
        watcher_name: str,
        events: Events,
        counts: Counts,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.view = view
        self._table = table
        self._watcher = Watcher(id=uuid4().hex, name=watcher_name)
        self._events = events
        self._counts = counts
        self._clock = clock
        self._protocol: WatchProtocol[tuple[str, Known]] = WatchProtocol(lambda route: entry_of(view, route))
        self._stream: Stream | None = None
        self._silent = False
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, service: Service) -> None:
        """Start the thread; it goes on from what the table has."""
        self._stopped = threading.Event()
        self._protocol = WatchProtocol(
            lambda route: entry_of(self.view, route),
            self.view.position,
            has_traffic=self.view.has_traffic,
            needs_traffic=True,
        )
        name = f"pointsman-watch-{self.view.filter.tenant or 'all'}"
        self._thread = threading.Thread(target=self._run, args=(service, self._stopped), name=name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Close the stream, so that the thread ends; ``join`` waits for that."""
        self._stopped.set()
        self._cancel()

    def join(self, seconds: float) -> None:
        """Wait until the thread has ended, for so long at most."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(seconds)

    def take_new_id(self) -> None:
        """Be another watcher: this is a copy of the process by now."""
        self._watcher.id = uuid4().hex

    def check_silence(self) -> None:
        """Close the stream if it has been silent for too long: the thread opens another one."""
        if self._clock() >= self._protocol.silent_at:
            self._silent = True
            self._cancel()

    def _cancel(self) -> None:
        stream = self._stream
        if stream is not None:
            stream.cancel()

    def _run(self, service: Service, stopped: threading.Event) -> None:
        while not stopped.is_set():
            generation, self._silent = service.generation, False
            error = self._failure_of(service, stopped)
            if self._silent:
                error = ProtocolViolation("the stream was silent")
                service.renew(generation)
            if stopped.is_set():
                break
            pause = self._protocol.ended(error, self._clock())
            self._ended(error)
            stopped.wait(pause)
        self.view.live = False

    def _ended(self, error: Exception | None) -> None:
        self.view.live = self.view.catching_up = False
        self._counts.add("stream_failures")
        _LOG.debug("a watch of %s ended: %s", self.view.filter, error)
        self._events.on_ended(error)

    def _failure_of(self, service: Service, stopped: threading.Event) -> Exception | None:
        """Follow one stream to its end. Returns what it ended with."""
        try:
            self._follow(service, stopped)
        except grpc.RpcError as error:
            return error_from_call(error)
        except (PointsmanError, ProtocolViolation) as error:
            return error
        except Exception as error:  # noqa: BLE001 - a near-cache that stops for good would be stale for good
            _LOG.exception("a watch failed; it is started over")
            self._protocol.start_over()
            return error
        finally:
            self._cancel()
            self._stream = None
        return None

    def _follow(self, service: Service, stopped: threading.Event) -> None:
        protocol = self._protocol
        metadata = service.metadata()
        stream = service.watch(self._request(protocol.resume), metadata)
        self._stream = stream
        if stopped.is_set():
            return
        self._counts.add("streams")
        protocol.opened(self._clock())
        for event in stream:
            step = protocol.received(event, self._clock())
            if step is not None:
                self._write(step)
                self._events.on_written(step)
            if isinstance(step, Confirm) and step.report_progress:
                self._report(service, step)
            if not protocol.live:
                self.view.live = False

    def _write(self, step: Replace[tuple[str, Known]] | Apply | Confirm) -> None:
        if self.view.has_traffic and not self._protocol.has_traffic:
            self._table.drop_traffic(self.view)
        if isinstance(step, Confirm):
            self._table.confirm(self.view, step.as_of, step.age)
        elif isinstance(step, Apply):
            self._table.apply(self.view, step.as_of, step.changes)
            self._counts.add("changes", len(step.changes))
        else:
            self.view.catching_up = self.view.confirmed_at == -inf
            self._table.replace(self.view, step.as_of, step.routes, step.traffic)
            self._counts.add("snapshots")

    def _request(self, resume: ResumeToken | None) -> WatchRequest:
        wanted = self.view.filter
        return WatchRequest(
            tenant=wanted.tenant,
            service=wanted.service,
            env=wanted.env,
            resume=resume,
            watcher=self._watcher,
            traffic=True,
        )

    def _report(self, service: Service, step: Confirm) -> None:
        wanted = self.view.filter
        request = ReportProgressRequest(
            watcher_id=self._watcher.id,
            applied=ResumeToken(epoch=step.as_of.epoch, revision=step.as_of.revision),
            tenant=wanted.tenant,
            service=wanted.service,
            env=wanted.env,
        )
        try:
            service.report_progress(request, service.metadata())
        except PointsmanError as error:
            _LOG.debug("progress was not reported: %s", error)
