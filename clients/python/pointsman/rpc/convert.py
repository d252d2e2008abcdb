"""From the messages of the API to the values that the client returns: nothing of protobuf passes this module."""

from datetime import UTC

from pointsman.keys import FamilyKey, RouteKey
from pointsman.results import (
    BatchResult,
    Change,
    ChangeKind,
    ImportResult,
    Resolution,
    Route,
    Source,
    Target,
    Traffic,
)
from pointsman.rpc.statuses import error_from_status
from pointsman.v1 import route_pb2, route_service_pb2, traffic_pb2

_SOURCES = {
    route_service_pb2.Provenance.SOURCE_LOCAL: Source.LOCAL,
    route_service_pb2.Provenance.SOURCE_REDIS: Source.REDIS,
    route_service_pb2.Provenance.SOURCE_POSTGRES: Source.POSTGRES,
}
_KINDS = {
    route_pb2.CHANGE_KIND_CREATED: ChangeKind.CREATED,
    route_pb2.CHANGE_KIND_UPDATED: ChangeKind.UPDATED,
    route_pb2.CHANGE_KIND_ACTIVATED: ChangeKind.ACTIVATED,
    route_pb2.CHANGE_KIND_DEACTIVATED: ChangeKind.DEACTIVATED,
    route_pb2.CHANGE_KIND_DELETED: ChangeKind.DELETED,
    route_pb2.CHANGE_KIND_TRAFFIC_SET: ChangeKind.TRAFFIC_SET,
    route_pb2.CHANGE_KIND_TRAFFIC_DELETED: ChangeKind.TRAFFIC_DELETED,
}


def key_of(message: route_pb2.RouteKey) -> RouteKey:
    """Return the key; it is not checked, the server has done so."""
    return RouteKey(message.tenant, message.service, message.env, message.version)


def route_of(message: route_pb2.Route) -> Route:
    """Return the route."""
    return Route(
        key=key_of(message.key),
        url=message.url,
        active=message.active,
        labels=dict(message.labels),
        revision=message.revision,
        create_time=message.create_time.ToDatetime(tzinfo=UTC),
        update_time=message.update_time.ToDatetime(tzinfo=UTC),
    )


def traffic_of(message: traffic_pb2.Traffic) -> Traffic:
    """Return the traffic."""
    return Traffic(
        key=FamilyKey(message.tenant, message.service, message.env),
        targets=tuple(Target(target.version, target.weight) for target in message.targets),
        fallbacks=tuple(message.fallbacks),
        slices=tuple((piece.version, piece.size) for piece in message.slices),
        revision=message.revision,
        create_time=message.create_time.ToDatetime(tzinfo=UTC),
        update_time=message.update_time.ToDatetime(tzinfo=UTC),
    )


def source_of(source: route_service_pb2.Provenance.Source.ValueType) -> Source:
    """Return the layer."""
    return _SOURCES.get(source, Source.UNKNOWN)


def resolution_of(
    answer: route_service_pb2.ResolveResponse | route_service_pb2.BatchResolveResponse.Result,
) -> Resolution:
    """Return the live route of an answer, with its provenance."""
    provenance = answer.provenance
    return Resolution(
        route=route_of(answer.route),
        source=source_of(provenance.source),
        age=provenance.age.ToTimedelta(),
        as_of_revision=provenance.as_of_revision,
        epoch=provenance.epoch,
    )


def batch_result_of(result: route_service_pb2.BatchResolveResponse.Result) -> BatchResult:
    """Return one result of a batch; a status becomes the exception that ``resolve`` would have raised."""
    key = key_of(result.key)
    if result.WhichOneof("answer") == "route":
        return BatchResult(key, resolution=resolution_of(result))
    return BatchResult(key, error=error_from_status(result.status))


def import_result_of(message: route_service_pb2.ImportResponse) -> ImportResult:
    """Return what an import did."""
    return ImportResult(message.created, message.updated, message.unchanged, message.revision)


def change_of(message: route_pb2.RouteChange) -> Change:
    """Return the change."""
    return Change(
        revision=message.revision,
        event_id=message.event_id,
        kind=_KINDS.get(message.kind, ChangeKind.UNKNOWN),
        key=key_of(message.key),
        before=route_of(message.before) if message.HasField("before") else None,
        after=route_of(message.after) if message.HasField("after") else None,
        actor=message.actor,
        reason=message.reason,
        request_id=message.request_id,
        occur_time=message.occur_time.ToDatetime(tzinfo=UTC),
        epoch=message.epoch,
        traceparent=message.traceparent,
        tracestate=message.tracestate,
        change_set_id=message.change_set_id,
        change_set_size=message.change_set_size,
        traffic_before=traffic_of(message.traffic_before) if message.HasField("traffic_before") else None,
        traffic_after=traffic_of(message.traffic_after) if message.HasField("traffic_after") else None,
    )
