"""Encodes responses around routes, and choices, that are already encoded."""

from functools import lru_cache

from pointsman.v1 import route_service_pb2 as pb
from pointsman_server.domain.codec import key_from_bytes, route_to_message
from pointsman_server.reads.answer import Answer, Source
from pointsman_server.reads.cache_entry import ACTIVE, REST, CacheHit, snapshot_of
from pointsman_server.rpc import convert
from pointsman_server.rpc.fastpath import wire
from pointsman_server.rpc.fastpath.families import Chosen

SOURCES = {
    source: pb.Provenance(source=pb.Provenance.Source.Value(f"SOURCE_{source}")).SerializeToString()
    for source in Source
}
LOCAL = SOURCES[Source.LOCAL]


def resolve_response(key: bytes, rest: bytes, source: bytes, as_of: int, epoch: str, age: float) -> bytes:
    """Encode a ResolveResponse.

    ``key`` and ``rest`` together are the route: its field 1, with tag and length, and the other fields. ``source`` is
    one of ``SOURCES``, ``age`` is in seconds.
    """
    known, of_now = _provenance(source, as_of, epoch), wire.age(int(age * 1000))
    return b"".join(
        (wire.head(1, len(key) + len(rest)), key, rest, wire.head(2, len(known) + len(of_now)), known, of_now)
    )


def response_of(answer: Answer) -> bytes:
    """Encode a ResolveResponse. Raises RouteNotFound and RouteInactive."""
    route, snapshot = answer.route(), answer.snapshot
    encoded = answer.encoded or route_to_message(route).SerializeToString()
    return resolve_response(b"", encoded, SOURCES[answer.source], snapshot.as_of, snapshot.epoch, answer.age)


def batch_result(encoded_key: bytes, hit: CacheHit) -> bytes:
    """Encode the result of one key in a BatchResolveResponse, with tag and length."""
    record, state, as_of, age, entry = hit
    if state != ACTIVE:
        key = key_from_bytes(encoded_key)
        answer = Answer(snapshot_of(key, hit), Source.LOCAL, age)
        return wire.field(1, convert.batch_result(key, answer).SerializeToString())
    key_field, rest = wire.field(1, encoded_key), record[REST:]
    provenance = _provenance(LOCAL, as_of, entry.epoch) + wire.age(int(age * 1000))
    route = wire.head(2, len(key_field) + len(rest)) + key_field + rest
    return wire.field(1, key_field + route + wire.field(4, provenance))


def select_response(chosen: Chosen, as_of: int, epoch: str, age: float) -> bytes:
    """Encode a SelectResponse of the local cache; ``age`` is in seconds."""
    known, of_now = _provenance(LOCAL, as_of, epoch), wire.age(int(age * 1000))
    return b"".join((chosen[0], wire.head(2, len(known) + len(of_now)), known, of_now, chosen[1]))


def select_provenance(hit: CacheHit) -> bytes:
    """Encode the provenance of a result of a BatchSelect, with tag and length."""
    _, _, as_of, age, entry = hit
    return wire.field(3, _provenance(LOCAL, as_of, entry.epoch) + wire.age(int(age * 1000)))


def select_result(chosen: Chosen, provenance: bytes) -> bytes:
    """Encode a result of a BatchSelectResponse, with tag and length."""
    length = len(chosen[0]) + len(provenance) + len(chosen[2])
    return b"".join((wire.head(1, length), chosen[0], provenance, chosen[2]))


@lru_cache(4096)
def _provenance(source: bytes, as_of: int, epoch: str) -> bytes:
    """Encode a provenance without its age: most answers share one of few revisions."""
    revision = b"\x18" + wire.varint(as_of) if as_of else b""
    return source + revision + (wire.field(4, epoch.encode()) if epoch else b"")
