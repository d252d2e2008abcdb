"""Converts the domain to protobuf messages and back: the encoding that RPC, Redis and Kafka share."""

from datetime import UTC, datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp

from pointsman.selection import POINTS
from pointsman.v1 import route_pb2, selection_pb2, traffic_pb2
from pointsman_server.domain.routes import Change, ChangeKind, Family, Route, RouteKey, Traffic
from pointsman_server.domain.traffic import Division, Slice, Target

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


def key_to_message(key: RouteKey) -> route_pb2.RouteKey:
    return route_pb2.RouteKey(tenant=key.tenant, service=key.service, env=key.env, version=key.version)


def key_from_message(message: route_pb2.RouteKey) -> RouteKey:
    """Decode a valid key."""
    return RouteKey(message.tenant, message.service, message.env, message.version)


def key_to_bytes(key: RouteKey) -> bytes:
    """Encode a key as protobuf does, in half the time; different keys have different bytes.

    Every part of a valid key is ASCII, not empty, and shorter than 128 characters, so its length is one byte. Only that
    of a family has an empty part, the version, and protobuf leaves that out.
    """
    tenant, service, env, version = key
    text = f"\n{chr(len(tenant))}{tenant}\x12{chr(len(service))}{service}\x1a{chr(len(env))}{env}"
    if version:
        text = f"{text}\x22{chr(len(version))}{version}"
    return text.encode("utf-8", "surrogatepass")


def key_from_bytes(encoded: bytes) -> RouteKey:
    """Decode the result of ``key_to_bytes`` of a valid key."""
    return key_from_message(route_pb2.RouteKey.FromString(encoded))


def route_to_message(route: Route) -> route_pb2.Route:
    message = route_pb2.Route()
    _fill_route(message, route)
    return message


def route_from_message(message: route_pb2.Route, key: RouteKey | None = None) -> Route:
    """Decode a route. Raises ValueError when it has another key than ``key``, if one is given."""
    if key is None:
        key = key_from_message(message.key)
    elif not _is_of(message.key, key):
        raise ValueError("a route of another key")
    return _route(key, message)


def value_to_bytes(value: Route | Family) -> bytes:
    """Encode a route, or a family."""
    message = route_to_message(value) if isinstance(value, Route) else family_to_message(value)
    return message.SerializeToString()


def value_from_bytes(key: RouteKey, encoded: bytes) -> Route | Family:
    """Decode the route or the family of ``key``. Raises ValueError and DecodeError when it is not one."""
    if key.version:
        return route_from_message(route_pb2.Route.FromString(encoded), key)
    return family_from_message(selection_pb2.Family.FromString(encoded), key)


def rest_to_bytes(value: Route | Family) -> bytes:
    """Encode a route or a family without its key: with the key put before it, that is the whole message.

    The key of a route is field 1. That of a family is its first three fields, as ``key_to_bytes`` encodes them.
    """
    if isinstance(value, Route):
        return _without_key(value).SerializeToString()
    return _family_without_key(value).SerializeToString()


def rest_of(key: RouteKey, encoded_key: bytes, value: bytes) -> bytes:
    """Cut the key, also given as of ``key_to_bytes``, off an encoded value; nothing unless it comes first."""
    if not key.version:
        return value[len(encoded_key) :] if value.startswith(encoded_key) else b""
    return _rest_of_route(encoded_key, value)


def _rest_of_route(key: bytes, route: bytes) -> bytes:
    head = 2 + len(key)
    # A length of two bytes is left to protobuf.
    if len(key) < 128 and route[:2] == bytes((0x0A, len(key))) and route[2:head] == key:
        return route[head:]
    return b""


def rest_from_bytes(key: RouteKey, encoded: bytes) -> Route | Family:
    """Decode the result of ``rest_to_bytes`` of the route or family of ``key``."""
    if key.version:
        return _route(key, route_pb2.Route.FromString(encoded))
    return _family(key, selection_pb2.Family.FromString(encoded))


def traffic_to_message(traffic: Traffic) -> traffic_pb2.Traffic:
    tenant, service, env, _ = traffic.key
    message = traffic_pb2.Traffic(
        tenant=tenant,
        service=service,
        env=env,
        targets=[
            traffic_pb2.TrafficTarget(version=each.version, weight=each.weight) for each in traffic.division.targets
        ],
        fallbacks=traffic.division.fallbacks,
        slices=[traffic_pb2.TrafficSlice(version=each.version, size=each.size) for each in traffic.slices],
        revision=traffic.revision,
    )
    _set_time(message.create_time, traffic.create_time)
    _set_time(message.update_time, traffic.update_time)
    return message


def traffic_from_message(message: traffic_pb2.Traffic) -> Traffic:
    return Traffic(
        key=RouteKey(message.tenant, message.service, message.env, ""),
        division=Division(
            tuple(Target(each.version, each.weight) for each in message.targets), tuple(message.fallbacks)
        ),
        slices=tuple(Slice(each.version, each.size) for each in message.slices),
        revision=message.revision,
        create_time=moment(message.create_time),
        update_time=moment(message.update_time),
    )


def family_to_message(family: Family) -> selection_pb2.Family:
    message = _family_without_key(family)
    message.tenant, message.service, message.env, _ = family.key
    return message


def family_from_message(message: selection_pb2.Family, key: RouteKey) -> Family:
    """Decode a family. Raises ValueError when it or a part of it has another key than ``key``, or breaks a rule."""
    if (message.tenant, message.service, message.env) != key[:3]:
        raise ValueError("a family of another key")
    family = _family(key, message)
    if not all(route.active and route.key.version and route.key[:3] == key[:3] for route in family.routes):
        raise ValueError("a route that is not active, or of another family")
    if family.traffic and not _is_whole(family.traffic, key):
        raise ValueError("traffic of another family, or that does not add up")
    return family


def _is_whole(traffic: Traffic, key: RouteKey) -> bool:
    sizes = [piece.size for piece in traffic.slices]
    return traffic.key == key and sum(sizes) == POINTS and min(sizes) > 0


def _family_without_key(family: Family) -> selection_pb2.Family:
    traffic = traffic_to_message(family.traffic) if family.traffic else None
    return selection_pb2.Family(traffic=traffic, routes=map(route_to_message, family.routes))


def _family(key: RouteKey, message: selection_pb2.Family) -> Family:
    traffic = traffic_from_message(message.traffic) if message.HasField("traffic") else None
    return Family(key, traffic, tuple(map(route_from_message, message.routes)))


def _without_key(route: Route) -> route_pb2.Route:
    message = route_pb2.Route()
    _fill_rest(message, route)
    return message


def _fill_key(message: route_pb2.RouteKey, key: RouteKey) -> None:
    message.tenant, message.service, message.env, message.version = key


def _fill_route(message: route_pb2.Route, route: Route) -> None:
    _fill_key(message.key, route.key)
    _fill_rest(message, route)


def _fill_rest(message: route_pb2.Route, route: Route) -> None:
    # Field by field: twice as fast as making messages that are copied into this one.
    message.url, message.active, message.revision = route.url, route.active, route.revision
    labels = message.labels
    for name, value in route.labels.items():
        labels[name] = value
    _set_time(message.create_time, route.create_time)
    _set_time(message.update_time, route.update_time)


def _set_time(message: Timestamp, moment: datetime) -> None:
    since = moment - BEGINNING
    message.seconds, message.nanos = since.days * 86_400 + since.seconds, since.microseconds * 1_000


def _route(key: RouteKey, message: route_pb2.Route) -> Route:
    labels = message.labels
    return Route(
        key=key,
        url=message.url,
        active=message.active,
        # One key after the other: dict(labels) runs through classes in Python and takes ten times as long.
        labels={name: labels[name] for name in labels} if labels else {},
        revision=message.revision,
        create_time=moment(message.create_time),
        update_time=moment(message.update_time),
    )


def _is_of(message: route_pb2.RouteKey, key: RouteKey) -> bool:
    return (
        message.version == key.version
        and message.service == key.service
        and message.tenant == key.tenant
        and message.env == key.env
    )


_KINDS = {kind: route_pb2.ChangeKind.Value(f"CHANGE_KIND_{kind}") for kind in ChangeKind}


def change_to_message(change: Change) -> route_pb2.RouteChange:
    """Encode a change: the payload of the topic ``route-events``."""
    message = route_pb2.RouteChange()
    fill_change(message, change)
    return message


def fill_change(message: route_pb2.RouteChange, change: Change) -> None:
    """Encode a change into an empty message, such as one that was added to a response: nothing is copied."""
    message.revision, message.event_id, message.kind = change.revision, change.event_id, _KINDS[change.kind]
    _fill_key(message.key, change.key)
    if change.before:
        _fill_route(message.before, change.before)
    if change.after:
        _fill_route(message.after, change.after)
    message.actor, message.reason, message.request_id = change.actor, change.reason, change.request_id
    _set_time(message.occur_time, change.occur_time)
    message.epoch, message.traceparent, message.tracestate = change.epoch, change.traceparent, change.tracestate
    message.change_set_id, message.change_set_size = change.change_set_id, change.change_set_size
    message.change_set_end = change.change_set_end
    if change.traffic_before:
        message.traffic_before.CopyFrom(traffic_to_message(change.traffic_before))
    if change.traffic_after:
        message.traffic_after.CopyFrom(traffic_to_message(change.traffic_after))


def change_from_message(message: route_pb2.RouteChange) -> Change:
    """Decode a change. Raises ValueError for an unknown kind, and for a revision below 1."""
    if message.revision <= 0:
        raise ValueError("a change without a revision")
    return Change(
        revision=message.revision,
        event_id=message.event_id,
        kind=ChangeKind(route_pb2.ChangeKind.Name(message.kind).removeprefix("CHANGE_KIND_")),
        key=key_from_message(message.key),
        before=route_from_message(message.before) if message.HasField("before") else None,
        after=route_from_message(message.after) if message.HasField("after") else None,
        actor=message.actor,
        reason=message.reason,
        request_id=message.request_id,
        occur_time=moment(message.occur_time),
        epoch=message.epoch,
        traceparent=message.traceparent,
        change_set_end=message.change_set_end,
        tracestate=message.tracestate,
        change_set_id=message.change_set_id,
        change_set_size=message.change_set_size,
        traffic_before=traffic_from_message(message.traffic_before) if message.HasField("traffic_before") else None,
        traffic_after=traffic_from_message(message.traffic_after) if message.HasField("traffic_after") else None,
    )


def timestamp(moment: datetime) -> Timestamp:
    """Encode a datetime with a time zone, exactly; Timestamp.FromDatetime takes four times as long."""
    message = Timestamp()
    _set_time(message, moment)
    return message


def moment(message: Timestamp) -> datetime:
    """Decode to a datetime in UTC; Timestamp.ToDatetime takes three times as long. Raises ValueError."""
    try:
        return BEGINNING + timedelta(0, message.seconds, message.nanos // 1_000)
    except OverflowError as error:
        raise ValueError("a timestamp out of range") from error


def encoded_field(number: int, content: bytes) -> bytes:
    """Encode a message as field ``number``, 1 to 15, of another one: tag, length, content.

    protobuf.dev/programming-guides/encoding. So parts that are encoded once are joined to many messages.
    """
    head = bytearray((number << 3 | 2,))
    length = len(content)
    while length > 127:
        head.append(length & 127 | 128)
        length >>= 7
    head.append(length)
    return bytes(head) + content
