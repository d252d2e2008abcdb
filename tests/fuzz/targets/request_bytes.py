"""Requests as bytes: the first says which method is called, and by whom; the second what fails behind it.

The rest is the message. What parses is mutated as one, so that most inputs get past the parser.
"""

from random import Random
from typing import Any

import atheris
from google.protobuf.message import DecodeError, Message

from pointsman.v1 import route_pb2
from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_pb2 import AsOf
from pointsman.v1.traffic_methods_pb2 import (
    DeleteTrafficRequest,
    GetTrafficRequest,
    ListTrafficRequest,
    SetTrafficRequest,
)
from pointsman.v1.traffic_pb2 import TrafficTarget
from pointsman_server.rpc import pages
from tests.fuzz.calls import CALLERS, Rig
from tests.fuzz.hostile import TEXTS, fill, unknown_fields
from tests.support.fakes import EPOCH

MODULES = ("pointsman_server", "tests.fuzz.calls")
LONGEST = 8192
WORDS = tuple(text.encode() for text in TEXTS if text and len(text) < 64)

RIG, GUARDED = Rig(), Rig(guarded=True)
METHODS = tuple(RIG.requests)
# None: without authentication.
WHO = (None, *CALLERS)

KEY = route_pb2.RouteKey(tenant="a", service="b", env="c", version="live")
OTHER = route_pb2.RouteKey(tenant="a", service="b", env="c", version="new")
FULL = pb.CONSISTENCY_FULLY_CONSISTENT
LIST_TOKEN = pages._page_token("a/b/c/idle", pages._route_scope(pb.ListRequest()))
CHANGES_TOKEN = pages._page_token("1", pages._change_scope(pb.ListChangesRequest()))
FAMILY: dict[str, Any] = {"tenant": "a", "service": "b", "env": "c"}
TRAFFIC_TOKEN = pages._page_token("a/b/c", pages._traffic_scope(ListTrafficRequest()))
TARGETS = [TrafficTarget(version="live", weight=9_000), TrafficTarget(version="idle", weight=1_000)]
MUTATIONS = [
    pb.Mutation(create=pb.CreateRequest(key=OTHER, url="https://a.internal", labels={"tier": "gold"})),
    pb.Mutation(update=pb.UpdateRequest(key=OTHER, url="https://b.internal", allow_missing=True)),
    pb.Mutation(activate=pb.ActivateRequest(key=KEY, exclusive=True)),
    pb.Mutation(deactivate=pb.DeactivateRequest(key=KEY, expected_revision=1)),
    pb.Mutation(set_traffic=SetTrafficRequest(**FAMILY, targets=TARGETS, fallbacks=["idle"])),
    pb.Mutation(delete_traffic=DeleteTrafficRequest(**FAMILY)),
    pb.Mutation(delete=pb.DeleteRequest(key=KEY)),
]
GOOD: dict[str, tuple[Message, ...]] = {
    "Resolve": (
        pb.ResolveRequest(key=KEY, min_revision=2, epoch=EPOCH),
        pb.ResolveRequest(key=OTHER, consistency=FULL),
    ),
    "BatchResolve": (pb.BatchResolveRequest(keys=[KEY, OTHER, KEY]),),
    "Create": (pb.CreateRequest(key=OTHER, url="https://a.internal", labels={"tier": "gold"}, request_id="used"),),
    "Update": (
        pb.UpdateRequest(key=KEY, url="https://a.internal", expected_revision=1),
        pb.UpdateRequest(key=OTHER, labels=pb.Labels(labels={"tier": ""}), allow_missing=True),
    ),
    "Activate": (pb.ActivateRequest(key=KEY, exclusive=True, request_id="x"),),
    "Deactivate": (pb.DeactivateRequest(key=KEY, reason="because"),),
    "Delete": (pb.DeleteRequest(key=KEY, expected_revision=9),),
    "Import": (
        pb.ImportRequest(
            routes=[
                pb.ImportedRoute(key=KEY, url="https://a.internal", labels=pb.Labels(labels={"tier": "gold"})),
                pb.ImportedRoute(key=OTHER, url="https://b.internal", active=False),
            ],
            request_id="used",
        ),
        pb.ImportRequest(
            routes=[pb.ImportedRoute(key=OTHER, url="https://b.internal")], existing=pb.EXISTING_ROUTES_REFUSE
        ),
        pb.ImportRequest(routes=[pb.ImportedRoute(key=KEY, url="https://b.internal", expected_revision=1)]),
    ),
    "Commit": (
        pb.CommitRequest(mutations=MUTATIONS, request_id="x", reason="because"),
        pb.CommitRequest(mutations=[*MUTATIONS, *MUTATIONS], dry_run=True),
        pb.CommitRequest(mutations=[MUTATIONS[6], pb.Mutation()]),
    ),
    "SetTraffic": (
        SetTrafficRequest(**FAMILY, targets=TARGETS, fallbacks=["idle"]),
        SetTrafficRequest(**FAMILY, targets=TARGETS[:1], expected_revision=1),
    ),
    "GetTraffic": (GetTrafficRequest(**FAMILY), GetTrafficRequest(**FAMILY, as_of=AsOf(revision=1))),
    "ListTraffic": (ListTrafficRequest(tenant="a", page_size=1), ListTrafficRequest(page_token=TRAFFIC_TOKEN)),
    "DeleteTraffic": (DeleteTrafficRequest(**FAMILY, request_id="used"),),
    "Get": (pb.GetRequest(key=KEY),),
    "List": (pb.ListRequest(tenant="a", page_size=1), pb.ListRequest(page_token=LIST_TOKEN)),
    "ListChanges": (
        pb.ListChangesRequest(tenant="a", newest_first=True),
        pb.ListChangesRequest(page_token=CHANGES_TOKEN),
    ),
}


def _seed(method: str, body: bytes, caller: str | None = None, mood: int = 0) -> bytes:
    return bytes([WHO.index(caller) * len(METHODS) + METHODS.index(method), mood]) + body


SEEDS = (
    *(_seed(method, message.SerializeToString()) for method, messages in GOOD.items() for message in messages),
    *(_seed(method, b"\xff\xff\xff") for method in METHODS),
    _seed("Update", b"\xfb\x3f\x00\x00\xfc\x3f"),
    _seed("Resolve", b"\x0a\x06\x0a\x04\xff\xfe\xfd\xfc"),
    _seed("Revert", b"\x08\x02", "nobody", mood=21),
)


def check(data: bytes) -> None:
    """Give one call whatever the bytes say."""
    head = data[:2].ljust(2, b"\0")
    who, method = divmod(head[0], len(METHODS))
    caller = WHO[who % len(WHO)]
    rig = RIG if caller is None else GUARDED
    rig.judge(METHODS[method], data[2:], CALLERS.get(caller or "", ()), mood=head[1])


def mutate(data: bytes, size: int, seed: int) -> bytes:
    """Change a field of the message, or bytes of it where that is no message."""
    random = Random(seed)
    mutated = _message(data, random) if random.random() < 0.7 else None
    return mutated if mutated and len(mutated) <= size else bytes(atheris.Mutate(data, size))


def _message(data: bytes, random: Random) -> bytes | None:
    head = data[:2].ljust(2, b"\0")
    if random.random() < 0.2:
        # Mostly without authentication: a refused call reaches little.
        who = random.choice((0, 0, random.randrange(len(WHO))))
        head = bytes([who * len(METHODS) + random.randrange(len(METHODS)), random.randrange(24)])
    message = RIG.requests[METHODS[head[0] % len(METHODS)]]()
    try:
        message.MergeFromString(data[2:])
    except DecodeError:
        message.Clear()
    fill(random, message, share=0.3)
    rest = unknown_fields(random) if random.random() < 0.1 else b""
    return head + message.SerializeToString() + rest
