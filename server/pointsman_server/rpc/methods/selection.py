"""Serves Select and BatchSelect."""

import time
from collections.abc import Iterable, Sequence

from pointsman.v1 import route_service_pb2 as pb
from pointsman_server.domain.errors import (
    FieldViolation,
    InvalidField,
    PointsmanError,
)
from pointsman_server.domain.routes import RouteKey
from pointsman_server.ports.history import RouteHistory
from pointsman_server.reads.answer import Answer, Source
from pointsman_server.reads.resolver import Resolver
from pointsman_server.reads.revision_tokens import RevisionTokens
from pointsman_server.reads.selection import Selector
from pointsman_server.rpc import selections
from pointsman_server.rpc.convert import family_from_message
from pointsman_server.rpc.fastpath.declined import lookup_of_call
from pointsman_server.rpc.methods.as_of import load
from pointsman_server.rpc.methods.usage import UsageMethods
from pointsman_server.rpc.selections import OUTCOMES, Selected
from pointsman_server.runtime.fair_share import FairShare
from pointsman_server.telemetry.metrics import Metrics
from pointsman_server.telemetry.tracing import spans

# Selections that are decoded, or made, before other calls get a turn of the event loop. One takes some microseconds.
SELECTIONS_IN_A_TURN = 100


class SelectionMethods:
    """Serves Select and BatchSelect."""

    def __init__(
        self,
        resolver: Resolver,
        tokens: RevisionTokens,
        history: RouteHistory,
        usage: UsageMethods,
        metrics: Metrics,
        fair_share: FairShare,
    ) -> None:
        self._resolver = resolver
        self._tokens = tokens
        self._history = history
        self._usage = usage
        self._selected = SelectMeter(metrics)
        self._fair_share = fair_share

    async def select(self, request: pb.SelectRequest) -> pb.SelectResponse:
        """Choose a route for one caller.

        Raises NoActiveVersion and AmbiguousVersion, and what a read raises: of caches and store or, with ``as_of``, of
        the history.
        """
        begun = time.perf_counter()
        key = family_from_message(request)
        try:
            with spans.span("select") as span:
                selected = selections.choose(await self._answer(key, request), request.sticky_key.encode())
                if span.recording:
                    span.set(_facts(key, selected))
        except InvalidField:
            raise
        except PointsmanError as error:
            self._selected(error, begun)
            raise
        self._selected(selected, begun)
        self._usage.selected(_keys([selected]))
        return selections.select_response(selected)

    async def batch_select(self, request: pb.BatchSelectRequest) -> pb.BatchSelectResponse:
        """Choose a route for each of many callers."""
        begun = time.perf_counter()
        keys = await self._fair_share.map(family_from_message, request.selections, size=SELECTIONS_IN_A_TURN)
        with spans.span("select", attributes={"pointsman.batch.size": len(keys)}):
            answers = await self._resolver.resolve_many(
                keys,
                await self._floor(request),
                fully_consistent=request.consistency == pb.CONSISTENCY_FULLY_CONSISTENT,
                lookup=lookup_of_call(),
            )
            selectors: dict[RouteKey, Selector] = {}

            def select(position: int) -> Selected | PointsmanError:
                answer = answers[position]
                if isinstance(answer, PointsmanError):
                    return answer
                selector = selectors.get(keys[position])
                if selector is None:
                    selector = selectors[keys[position]] = Selector(answer.snapshot.family)
                return selections.choose(answer, request.selections[position].sticky_key.encode(), selector)

            found = await self._fair_share.map(select, range(len(keys)), size=SELECTIONS_IN_A_TURN)
        self._usage.selected(_keys(found))

        def result(selected: Selected | PointsmanError) -> pb.BatchSelectResponse.Result:
            self._selected(selected, begun)
            return selections.batch_result(selected)

        return selections.batch_response(await self._fair_share.map(result, found))

    async def _answer(self, key: RouteKey, request: pb.SelectRequest) -> Answer:
        if not request.HasField("as_of"):
            return await self._resolver.resolve(
                key,
                await self._floor(request),
                fully_consistent=request.consistency == pb.CONSISTENCY_FULLY_CONSISTENT,
                lookup=lookup_of_call(),
            )
        if request.min_revision:
            raise InvalidField([FieldViolation("min_revision", "must not be set together with as_of")])
        return Answer(await load(key, request, self._resolver, self._history), Source.POSTGRES)

    async def _floor(self, request: pb.SelectRequest | pb.BatchSelectRequest) -> int:
        if request.min_revision and request.epoch:
            return await self._tokens.floor(request.min_revision, request.epoch)
        return request.min_revision


class SelectMeter:
    """Counts selections by outcome and times them by source, with the labels bound once."""

    def __init__(self, metrics: Metrics) -> None:
        self._outcomes = {name: metrics.selects.labels(name) for name in OUTCOMES}
        self._seconds = {source: metrics.select_seconds.labels(source) for source in Source}

    def __call__(self, selected: Selected | PointsmanError, begun: float) -> None:
        """Count one selection of a call that began at ``begun`` by ``time.perf_counter``."""
        if isinstance(selected, PointsmanError):
            self._outcomes["failed"].inc()
            return
        self._outcomes[selected.outcome].inc()
        self._seconds[selected.answer.source].observe(time.perf_counter() - begun, spans.exemplar())


def _keys(found: Sequence[Selected | PointsmanError]) -> Iterable[RouteKey]:
    """Return the keys of the routes that were chosen."""
    return (
        each.chosen[0].key
        for each in found
        if isinstance(each, Selected) and not isinstance(each.chosen, PointsmanError)
    )


def _facts(key: RouteKey, selected: Selected) -> spans.Attributes:
    answer = selected.answer
    chosen: spans.Attributes = {}
    if not isinstance(selected.chosen, PointsmanError):
        route, choice = selected.chosen
        chosen = {"pointsman.route.key": str(route.key), "pointsman.select.rule": choice.rule.name.lower()}
    return {
        "pointsman.family": str(key),
        "pointsman.source": str(answer.source),
        "pointsman.as_of_revision": answer.snapshot.as_of,
        "pointsman.age_seconds": answer.age,
        **chosen,
    }
