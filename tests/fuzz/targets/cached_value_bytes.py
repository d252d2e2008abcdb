"""Foreign values in Redis are a miss, and never an answer.

The first 8 bytes are the revision, the rest is the value. Only revisions that a database can have: the scripts filter
all others, which ``redis_scripts`` tests.
"""

from random import Random

import atheris
from google.protobuf.message import DecodeError

from pointsman.v1 import route_pb2, selection_pb2
from pointsman_server.adapters.redis import cache
from pointsman_server.domain.codec import route_to_message, value_to_bytes
from pointsman_server.domain.errors import PointsmanError
from pointsman_server.domain.routes import Family, RouteKey
from pointsman_server.reads.answer import Answer, Source
from pointsman_server.rpc import selections
from pointsman_server.rpc.convert import batch_result
from tests.fuzz.hostile import fill
from tests.support.changes import make_change, make_traffic

MODULES = ("pointsman_server",)
KEY = RouteKey("acme", "pay", "prod", "v1")
ROUTE = make_change(7).after
assert ROUTE is not None
GOOD = route_to_message(ROUTE).SerializeToString()
FAMILY = value_to_bytes(Family(KEY.family_key, make_traffic(7), (ROUTE,)))
SEEDS = (
    *(revision.to_bytes(8, "big") + FAMILY for revision in (7, 8, 6, 2**63 - 1)),
    *(revision.to_bytes(8, "big") + GOOD for revision in (7, 8, 6, 0, 2**63 - 1)),
    (7).to_bytes(8, "big"),
    # A family with a route of another one.
    (7).to_bytes(8, "big") + b"\n\x04acme\x12\x03pay\x1a\x04prod*\x06\x08\x87\xf2\xd6\xca\x06",
    (7).to_bytes(8, "big") + b"\x32\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
)


def check(data: bytes) -> None:
    """Decode the bytes, as a lookup of a route does, and of a family."""
    check_family(data)
    revision, value = int.from_bytes(data[:8], "big") % 2**63, data[8:]
    lookup = cache._lookup(KEY, "e1", f"{revision:020d}".encode(), value)
    if lookup.snapshot is None:
        return
    assert not lookup.leased
    snapshot = lookup.snapshot
    assert snapshot.key == KEY
    assert snapshot.as_of == revision
    assert snapshot.route is None or snapshot.route.key == KEY, "the route of another key"
    assert snapshot.route is None or 0 < snapshot.route.revision <= snapshot.as_of, "a route of a later revision"
    batch_result(KEY, Answer(snapshot, Source.REDIS)).SerializeToString()


def check_family(data: bytes) -> None:
    """Decode the bytes, as a lookup of a family does."""
    revision, value = int.from_bytes(data[:8], "big") % 2**63, data[8:]
    key = KEY.family_key
    snapshot = cache._lookup(key, "e1", f"{revision:020d}".encode(), value).snapshot
    if snapshot is None:
        return
    assert snapshot.key == snapshot.family.key == key
    assert snapshot.family.revision <= snapshot.as_of == revision, "a family of a later revision"
    assert all(route.key.family_key == key for route in snapshot.family.routes), "the route of another family"
    selected = selections.choose(Answer(snapshot, Source.REDIS), b"user-1")
    assert selections.batch_result(selected).SerializeToString()
    if not isinstance(selected.chosen, PointsmanError):
        assert selected.chosen[0].active, "a route that is not active"


def mutate(data: bytes, size: int, seed: int) -> bytes:
    """Change a field of the route, or bytes of the entry."""
    random = Random(seed)
    message = random.choice((route_pb2.Route, selection_pb2.Family))()
    try:
        message.MergeFromString(data[8:])
    except DecodeError:
        return bytes(atheris.Mutate(data, size))
    if random.random() < 0.5:
        return bytes(atheris.Mutate(data, size))
    fill(random, message, share=0.2)
    mutated = data[:8] + message.SerializeToString()
    return mutated if len(mutated) <= size else bytes(atheris.Mutate(data, size))
