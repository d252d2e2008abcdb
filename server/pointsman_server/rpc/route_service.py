"""RouteService: decodes requests, calls the use cases and encodes their results. ``statuses`` maps their errors."""

import time
from collections import Counter
from collections.abc import Iterable

from pointsman.v1 import propagation_pb2, route_pb2, traffic_methods_pb2, usage_pb2, watch_pb2
from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_service_pb2_grpc import RouteServiceServicer
from pointsman_server.domain.codec import key_from_message, route_to_message
from pointsman_server.domain.errors import HistoryCompacted, PointsmanError, RouteNotFound
from pointsman_server.domain.routes import RouteKey
from pointsman_server.ports.history import RouteHistory
from pointsman_server.ports.store import Outcome, RouteStore
from pointsman_server.reads.answer import Answer
from pointsman_server.reads.resolver import Resolver
from pointsman_server.reads.revision_tokens import RevisionTokens
from pointsman_server.rpc import convert, pages
from pointsman_server.rpc.call import Context, current_call
from pointsman_server.rpc.fastpath.declined import lookup_of_call
from pointsman_server.rpc.methods.as_of import load
from pointsman_server.rpc.methods.change_sets import ChangeSetMethods
from pointsman_server.rpc.methods.explain import ExplainMethod
from pointsman_server.rpc.methods.receipts import ReceiptMethods
from pointsman_server.rpc.methods.selection import SelectionMethods
from pointsman_server.rpc.methods.traffic import TrafficMethods
from pointsman_server.rpc.methods.usage import UsageMethods
from pointsman_server.rpc.methods.watch import WatchMethod
from pointsman_server.rpc.methods.write_meter import WriteMeter
from pointsman_server.runtime.fair_share import FairShare
from pointsman_server.runtime.offload import in_thread_if_large
from pointsman_server.telemetry.metrics import Metrics
from pointsman_server.telemetry.tracing import spans
from pointsman_server.writes.bulk_import import BulkImporter
from pointsman_server.writes.group_commit import GroupCommitter

# Keys that are decoded before other calls get a turn of the event loop. Decoding one takes a microsecond.
KEYS_IN_A_TURN = 250


class RouteServicer(RouteServiceServicer):
    """Implements the service by the resolver, the writers and the store."""

    def __init__(
        self,
        resolver: Resolver,
        tokens: RevisionTokens,
        committer: GroupCommitter,
        importer: BulkImporter,
        store: RouteStore,
        watch: WatchMethod,
        receipts: ReceiptMethods,
        usage: UsageMethods,
        writes: WriteMeter,
        selection: SelectionMethods,
        traffic: TrafficMethods,
        change_sets: ChangeSetMethods,
        explain: ExplainMethod,
        metrics: Metrics,
        *,
        history: RouteHistory,
        fair_share: FairShare | None = None,
    ) -> None:
        self._resolver = resolver
        self._tokens = tokens
        self._committer = committer
        self._importer = importer
        self._store = store
        self._history = history
        self._watch = watch
        self._receipts = receipts
        self._usage = usage
        self._resolved = ResolveMeter(metrics)
        self._metrics = metrics
        self._writes = writes
        self._selection = selection
        self._traffic = traffic
        self._change_sets = change_sets
        self._explain = explain
        self._fair_share = fair_share or FairShare()

    async def Resolve(self, request: pb.ResolveRequest, context: Context) -> pb.ResolveResponse:
        begun = time.perf_counter()
        key = key_from_message(request.key)
        answer: Answer | PointsmanError
        try:
            with spans.span("resolve") as span:
                answer = await self._resolver.resolve(
                    key,
                    await self._floor(request),
                    fully_consistent=request.consistency == pb.CONSISTENCY_FULLY_CONSISTENT,
                    lookup=lookup_of_call(),
                )
                if span.recording:
                    span.set(_facts(key, answer))
        except PointsmanError as error:
            self._resolved(error, begun)
            raise
        self._resolved(answer, begun)
        self._usage.resolved([(key, answer)])
        return convert.resolve_response(answer)

    async def BatchResolve(self, request: pb.BatchResolveRequest, context: Context) -> pb.BatchResolveResponse:
        begun = time.perf_counter()
        keys = await self._fair_share.map(key_from_message, request.keys, size=KEYS_IN_A_TURN)
        with spans.span("resolve", attributes={"pointsman.batch.size": len(keys)}) as span:
            answers = await self._resolver.resolve_many(
                keys,
                await self._floor(request),
                fully_consistent=request.consistency == pb.CONSISTENCY_FULLY_CONSISTENT,
                lookup=lookup_of_call(),
            )
            if span.recording:
                span.set(_counts(answers))

        found = list(zip(keys, answers, strict=True))
        self._usage.resolved(found)

        def result(answered: tuple[RouteKey, Answer | PointsmanError]) -> pb.BatchResolveResponse.Result:
            self._resolved(answered[1], begun)
            return convert.batch_result(*answered)

        return convert.batch_response(await self._fair_share.map(result, found))

    async def Create(self, request: pb.CreateRequest, context: Context) -> pb.CreateResponse:
        intent = convert.intent(request, current_call())
        outcome = await self._writes.measured("create", self._committer.create(convert.create(request), intent))
        return pb.CreateResponse(route=_route(outcome))

    async def Update(self, request: pb.UpdateRequest, context: Context) -> pb.UpdateResponse:
        intent = convert.intent(request, current_call())
        outcome = await self._writes.measured("update", self._committer.update(convert.update(request), intent))
        return pb.UpdateResponse(route=_route(outcome))

    async def Activate(self, request: pb.ActivateRequest, context: Context) -> pb.ActivateResponse:
        intent = convert.intent(request, current_call())
        outcome = await self._writes.measured("activate", self._committer.activate(convert.activate(request), intent))
        return pb.ActivateResponse(route=_route(outcome), revision=outcome.revision)

    async def Deactivate(self, request: pb.DeactivateRequest, context: Context) -> pb.DeactivateResponse:
        intent = convert.intent(request, current_call())
        command = convert.deactivate(request, await self._usage.refusal(request))
        outcome = await self._writes.measured("deactivate", self._committer.deactivate(command, intent))
        return pb.DeactivateResponse(route=_route(outcome))

    async def Delete(self, request: pb.DeleteRequest, context: Context) -> pb.DeleteResponse:
        intent = convert.intent(request, current_call())
        command = convert.delete(request, await self._usage.refusal(request))
        outcome = await self._writes.measured("delete", self._committer.delete(command, intent))
        return pb.DeleteResponse(revision=outcome.revision)

    async def Import(self, request: pb.ImportRequest, context: Context) -> pb.ImportResponse:
        call = current_call()
        command, intent = await in_thread_if_large(
            lambda: (convert.import_(request), convert.intent(request, call)), len(request.routes)
        )
        imported = await self._writes.measured("import", self._importer.import_(command, intent))
        for outcome in ("created", "updated", "unchanged"):
            self._metrics.imported.labels(outcome).inc(getattr(imported, outcome))
        return convert.import_response(imported)

    async def Get(self, request: pb.GetRequest, context: Context) -> pb.GetResponse:
        key = key_from_message(request.key)
        snapshot = await load(key, request, self._resolver, self._history)
        if snapshot.route is None:
            raise RouteNotFound(str(key), snapshot.as_of, snapshot.epoch)
        return pb.GetResponse(route=route_to_message(snapshot.route), as_of_revision=snapshot.as_of)

    async def List(self, request: pb.ListRequest, context: Context) -> pb.ListResponse:
        query, revision = pages.route_query(request), await pages.revision_of(request, self._history)
        if revision is None:
            routes = await self._store.list_routes(query)
        else:
            routes = await self._history.list_routes_as_of(query, revision)
        return await pages.list_response(request, routes, self._fair_share, revision)

    async def ListChanges(self, request: pb.ListChangesRequest, context: Context) -> pb.ListChangesResponse:
        query = await pages.within_times(pages.change_query(request), request, self._history)
        changes = await self._store.list_changes(query)
        if pages.begins(request):
            await self._check_kept(query.after_revision)
        return await pages.list_changes_response(request, changes, self._fair_share)

    async def Watch(  # type: ignore[override]  # it writes to the context
        self, request: watch_pb2.WatchRequest, context: Context
    ) -> None:
        with self._receipts.watching(request):
            await self._watch.watch(request, context)

    async def ReportProgress(
        self, request: propagation_pb2.ReportProgressRequest, context: Context
    ) -> propagation_pb2.ReportProgressResponse:
        return await self._receipts.report_progress(request)

    async def GetPropagation(
        self, request: propagation_pb2.GetPropagationRequest, context: Context
    ) -> propagation_pb2.GetPropagationResponse:
        return await self._receipts.get_propagation(request)

    async def GetUsage(self, request: usage_pb2.GetUsageRequest, context: Context) -> usage_pb2.GetUsageResponse:
        return await self._usage.get_usage(request)

    async def ReportUsage(
        self, request: usage_pb2.ReportUsageRequest, context: Context
    ) -> usage_pb2.ReportUsageResponse:
        return self._usage.report_usage(request)

    async def Select(self, request: pb.SelectRequest, context: Context) -> pb.SelectResponse:
        return await self._selection.select(request)

    async def BatchSelect(self, request: pb.BatchSelectRequest, context: Context) -> pb.BatchSelectResponse:
        return await self._selection.batch_select(request)

    async def Explain(self, request: pb.ExplainRequest, context: Context) -> pb.ExplainResponse:
        return await self._explain.explain(request)

    async def SetTraffic(
        self, request: traffic_methods_pb2.SetTrafficRequest, context: Context
    ) -> traffic_methods_pb2.SetTrafficResponse:
        return await self._traffic.set(request)

    async def GetTraffic(
        self, request: traffic_methods_pb2.GetTrafficRequest, context: Context
    ) -> traffic_methods_pb2.GetTrafficResponse:
        return await self._traffic.get(request)

    async def ListTraffic(
        self, request: traffic_methods_pb2.ListTrafficRequest, context: Context
    ) -> traffic_methods_pb2.ListTrafficResponse:
        return await self._traffic.list(request)

    async def DeleteTraffic(
        self, request: traffic_methods_pb2.DeleteTrafficRequest, context: Context
    ) -> traffic_methods_pb2.DeleteTrafficResponse:
        return await self._traffic.delete(request)

    async def Commit(self, request: pb.CommitRequest, context: Context) -> pb.CommitResponse:
        return await self._change_sets.commit(request)

    async def Revert(self, request: pb.RevertRequest, context: Context) -> pb.RevertResponse:
        return await self._change_sets.revert(request)

    async def _check_kept(self, revision: int) -> None:
        """Raise HistoryCompacted if changes after ``revision`` that were just read may have been gone already."""
        compacted = await self._store.compacted()
        if compacted > revision:
            raise HistoryCompacted(revision, compacted)

    async def _floor(self, request: pb.ResolveRequest | pb.BatchResolveRequest) -> int:
        if request.min_revision and request.epoch:
            return await self._tokens.floor(request.min_revision, request.epoch)
        return request.min_revision


class ResolveMeter:
    """Counts resolved keys by outcome and times them by source, with the labels bound once."""

    def __init__(self, metrics: Metrics) -> None:
        self._outcomes = {name: metrics.resolves.labels(name) for name in ("active", "inactive", "absent", "failed")}
        self._seconds = {name: metrics.resolve_seconds.labels(name) for name in ("LOCAL", "REDIS", "POSTGRES")}

    def __call__(self, answer: Answer | PointsmanError, begun: float) -> None:
        """Count one key of a call that began at ``begun`` by ``time.perf_counter``."""
        if isinstance(answer, PointsmanError):
            self._outcomes["failed"].inc()
            return
        route = answer.snapshot.route
        self._outcomes["absent" if route is None else "active" if route.active else "inactive"].inc()
        self._seconds[answer.source].observe(time.perf_counter() - begun, spans.exemplar())


def _facts(key: RouteKey, answer: Answer) -> spans.Attributes:
    return {
        "pointsman.route.key": str(key),
        "pointsman.source": str(answer.source),
        "pointsman.as_of_revision": answer.snapshot.as_of,
        "pointsman.age_seconds": answer.age,
    }


def _counts(answers: Iterable[Answer | PointsmanError]) -> spans.Attributes:
    """Count keys by the layer that answered."""
    sources = Counter("failed" if isinstance(each, PointsmanError) else each.source.lower() for each in answers)
    return {f"pointsman.source.{source}": count for source, count in sources.items()}


def _route(outcome: Outcome) -> route_pb2.Route | None:
    return route_to_message(outcome.route) if outcome.route else None
