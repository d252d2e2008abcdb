"""What the fake server knows of watchers: a stream for each, who has a revision, and who reads a key."""

# ruff: noqa: N802 - the methods are named as in the API.

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import groupby
from typing import Any

import grpc

from pointsman.v1 import propagation_pb2, route_pb2, traffic_pb2, usage_pb2, watch_pb2

CHECKPOINT_SECONDS = 0.05
BATCH = 2
"""Routes; few, so that a snapshot has several batches."""


class FakeWatchers:
    """A part of ``FakeServer``, which has the routes and their changes.

    ``end_streams`` ends those that are open; ``compacted`` is the revision up to which changes are not kept;
    ``silent`` streams send nothing more; one that does not ``know_traffic`` is of an earlier release.
    """

    routes: dict[tuple[str, ...], route_pb2.Route]
    traffic: dict[tuple[str, ...], traffic_pb2.Traffic]
    changes: list[route_pb2.RouteChange]
    epoch: str
    _entered: Callable[[str, Any, Any], AbstractContextManager[None]]
    _refuse: Callable[[Any, Any], None]

    def __init__(self) -> None:
        self.compacted = 0
        self.silent = False
        self.knows_traffic = True
        self.streams = 0
        self.propagation: list[propagation_pb2.GetPropagationResponse] = []
        self.reports: list[propagation_pb2.ReportProgressRequest] = []
        self.report_seconds = 0.0
        self.usage = usage_pb2.GetUsageResponse()
        self._changed = threading.Condition(threading.RLock())
        self._ending: Any = None
        self._generation = 0

    # For the tests

    def end_streams(self, failure: Any) -> None:
        """End every open stream with a failure."""
        with self._changed:
            self._ending = failure
            self._generation += 1
            self._changed.notify_all()

    # The service

    def GetPropagation(self, request: Any, context: Any) -> propagation_pb2.GetPropagationResponse:
        """Answer what ``propagation`` has, in turn; the last one again and again."""
        with self._entered("GetPropagation", request, context):
            if not self.propagation:
                return propagation_pb2.GetPropagationResponse(all_servers=True)
            return self.propagation.pop(0) if len(self.propagation) > 1 else self.propagation[0]

    def ReportProgress(self, request: Any, context: Any) -> propagation_pb2.ReportProgressResponse:
        """Take a report, unless its caller has given up by ``report_seconds`` later."""
        with self._entered("ReportProgress", request, context):
            pass
        time.sleep(self.report_seconds)
        if context.is_active():
            self.reports.append(request)
        return propagation_pb2.ReportProgressResponse()

    def GetUsage(self, request: Any, context: Any) -> usage_pb2.GetUsageResponse:
        with self._entered("GetUsage", request, context):
            return self.usage

    def Watch(self, request: Any, context: Any) -> Iterator[watch_pb2.WatchResponse]:
        with self._entered("Watch", request, context):
            generation, sent = self._generation, len(self.changes)
            first = list(self._snapshot(request))
            if request.HasField("resume"):
                self._check_token(request, context)
                first, sent = [], request.resume.revision
            if self._has_traffic(request):
                first.insert(0, watch_pb2.WatchResponse(opened=watch_pb2.Opened(traffic=True)))
            self.streams += 1
        context.add_callback(self._wake)
        try:
            yield from first
            yield from self._follow(request, context, sent, generation)
        finally:
            with self._changed:
                self.streams -= 1

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _check_token(self, request: Any, context: Any) -> None:
        if request.resume.epoch != self.epoch:
            self._refuse(context, (grpc.StatusCode.ABORTED, "another epoch", "EPOCH_CHANGED"))
        if request.resume.revision < self.compacted:
            self._refuse(context, (grpc.StatusCode.OUT_OF_RANGE, "compacted", "REVISION_COMPACTED"))
        if request.resume.revision > len(self.changes):
            self._refuse(context, (grpc.StatusCode.UNAVAILABLE, "not there yet", "REVISION_NOT_REACHED"))

    def _token(self, revision: int) -> watch_pb2.ResumeToken:
        return watch_pb2.ResumeToken(epoch=self.epoch, revision=revision)

    def _has_traffic(self, request: Any) -> bool:
        return bool(request.traffic) and self.knows_traffic

    def _snapshot(self, request: Any) -> Iterator[watch_pb2.WatchResponse]:
        as_of = self._token(len(self.changes))
        found = [route for _, route in sorted(self.routes.items()) if matches(request, route.key)]
        for start in range(0, len(found), BATCH):
            batch = watch_pb2.SnapshotBatch(as_of=as_of, routes=found[start : start + BATCH])
            yield watch_pb2.WatchResponse(snapshot=batch)
        traffic = [each for _, each in sorted(self.traffic.items()) if matches(request, each)]
        traffic = traffic if self._has_traffic(request) else []
        for start in range(0, len(traffic), BATCH):
            batch = watch_pb2.SnapshotBatch(as_of=as_of, traffic=traffic[start : start + BATCH])
            yield watch_pb2.WatchResponse(snapshot=batch)
        end = watch_pb2.EndOfSnapshot(as_of=as_of, route_count=len(found), traffic_count=len(traffic))
        yield watch_pb2.WatchResponse(end_of_snapshot=end)

    def _follow(self, request: Any, context: Any, sent: int, generation: int) -> Iterator[watch_pb2.WatchResponse]:
        while context.is_active():
            with self._changed:
                if self._generation == generation and (len(self.changes) == sent or self.silent):
                    self._changed.wait(CHECKPOINT_SECONDS)
                ended, missed = self._generation != generation, self.changes[sent:]
            if ended:
                self._refuse(context, self._ending)
            if self.silent:
                continue
            yield from self._sets(request, missed)
            sent += len(missed)
            yield watch_pb2.WatchResponse(checkpoint=watch_pb2.Checkpoint(as_of=self._token(sent)))

    def _sets(self, request: Any, missed: list[route_pb2.RouteChange]) -> Iterator[watch_pb2.WatchResponse]:
        for end, made in groupby(missed, lambda each: each.change_set_end or each.revision):
            mine = [
                each for each in made if matches(request, each.key) and (each.key.version or self._has_traffic(request))
            ]
            if mine:
                yield watch_pb2.WatchResponse(changes=watch_pb2.ChangeSet(changes=mine, as_of=self._token(end)))


def matches(request: Any, key: Any) -> bool:
    return all(getattr(request, name) in {"", getattr(key, name)} for name in ("tenant", "service", "env"))
