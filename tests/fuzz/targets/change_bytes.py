"""Messages of the topic as bytes: a valid change, or NotAChange."""

from random import Random

import atheris
from google.protobuf.message import DecodeError

from pointsman.v1 import route_pb2
from pointsman_server.adapters.kafka.decoder import NotAChange, change_from_bytes
from pointsman_server.audit.hash_chain import canonical
from pointsman_server.domain.routes import ChangeKind, RouteKey
from tests.fuzz.calls import check_told
from tests.fuzz.hostile import fill, unknown_fields
from tests.support.changes import make_change, make_traffic_change

MODULES = ("pointsman_server",)
SEEDS = (
    *(canonical(make_change(number, kind=kind)) for number, kind in enumerate(ChangeKind, 1) if not kind.of_traffic),
    *(canonical(make_traffic_change(number, kind=kind)) for number, kind in enumerate(ChangeKind) if kind.of_traffic),
    canonical(make_change(2**31, epoch="", trace="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")),
    b"",
    b"\x08\x01",
    b"\x08\x01\x18\x09",
    b"\x0a\xff\xff\xff\xff\x07",
)


def check(data: bytes) -> None:
    """Decode the bytes, as consumers do."""
    try:
        change = change_from_bytes(data)
    except NotAChange as error:
        check_told([str(error)], None)
        return
    assert 0 < change.revision < 2**63
    if change.kind.of_traffic:
        assert RouteKey.parse(f"{change.key}/v1").family_key == change.key
    else:
        assert RouteKey.parse(str(change.key)) == change.key
    assert change_from_bytes(canonical(change)) == change, "does not come back as it was"
    after = change.traffic_after if change.kind.of_traffic else change.after
    assert (after is None) == (change.kind in {ChangeKind.DELETED, ChangeKind.TRAFFIC_DELETED})
    assert after is None or after.revision == change.revision
    for value in (change.before, change.after, change.traffic_before, change.traffic_after):
        assert value is None or value.key == change.key, "carries the route or the traffic of another key"


def mutate(data: bytes, size: int, seed: int) -> bytes:
    """Change a field of the message, or bytes if the data is no message."""
    random = Random(seed)
    message = route_pb2.RouteChange()
    try:
        message.MergeFromString(data)
    except DecodeError:
        return bytes(atheris.Mutate(data, size))
    if random.random() < 0.5:
        return bytes(atheris.Mutate(data, size))
    fill(random, message, share=0.15)
    if random.random() < 0.5 and message.HasField("traffic_after"):
        message.traffic_after.revision = message.revision
    if random.random() < 0.5 and message.HasField("after"):
        message.after.key.CopyFrom(message.key)
        message.after.revision = message.revision
    mutated = message.SerializeToString() + (unknown_fields(random) if random.random() < 0.1 else b"")
    return mutated if len(mutated) <= size else bytes(atheris.Mutate(data, size))
