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
from tests.support.changes import make_change

MODULES = ("pointsman_server",)
SEEDS = (
    *(canonical(make_change(number, kind=kind)) for number, kind in enumerate(ChangeKind, 1)),
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
    assert RouteKey.parse(str(change.key)) == change.key
    assert change_from_bytes(canonical(change)) == change, "does not come back as it was"
    assert (change.after is None) == (change.kind is ChangeKind.DELETED)
    assert change.snapshot.route is None or change.snapshot.route.revision == change.revision
    for route in (change.before, change.after):
        assert route is None or route.key == change.key, "carries the route of another key"


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
    if random.random() < 0.5 and message.HasField("after"):
        message.after.key.CopyFrom(message.key)
        message.after.revision = message.revision
    mutated = message.SerializeToString() + (unknown_fields(random) if random.random() < 0.1 else b"")
    return mutated if len(mutated) <= size else bytes(atheris.Mutate(data, size))
