"""The requests: files of messages as gRPC frames them, made of the demo's table of routes."""

import bisect
import itertools
import random
from collections.abc import Iterable, Sequence
from pathlib import Path

from google.protobuf.message import Message

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_pb2 import RouteKey as KeyMessage
from pointsman_server.cli import demo_routes
from pointsman_server.domain.codec import key_to_message
from pointsman_server.domain.routes import RouteKey
from tests.bench.protobuf import framed

ROUTES = 2000
URL = "https://payments-v1.team-a.prod.internal:8443"
LABELS = {"owner": "team-a", "tier": "gold"}


def resolves(*, exact: bool = False) -> list[pb.ResolveRequest]:
    """Ask once for every active route of the table; ``exact`` asks PostgreSQL itself."""
    consistency = pb.CONSISTENCY_FULLY_CONSISTENT if exact else pb.CONSISTENCY_UNSPECIFIED
    active = (route for route in demo_routes.routes(ROUTES) if route.active)
    return [pb.ResolveRequest(key=key_to_message(route.key), consistency=consistency) for route in active]


# Its calls are divided between two versions: see ``rig.load_routes``.
DIVIDED = RouteKey("team-a", "payments", "prod", "")


def select() -> pb.SelectRequest:
    """Ask which version a caller is to use."""
    tenant, service, env, _ = DIVIDED
    return pb.SelectRequest(tenant=tenant, service=service, env=env, sticky_key="account-4711-7f0e")


def batch(size: int) -> pb.BatchResolveRequest:
    """Ask for the first active routes of the table at once."""
    return pb.BatchResolveRequest(keys=[request.key for request in resolves()[:size]])


def create(key: KeyMessage, *, active: bool = True) -> pb.CreateRequest:
    """Make a route of the usual size."""
    return pb.CreateRequest(key=key, url=URL, labels=LABELS, active=active, reason="benchmark")


def keys(tenant: str, count: int) -> list[KeyMessage]:
    """Name routes of a tenant."""
    return [KeyMessage(tenant=tenant, service=f"service-{number}", env="prod", version="v1") for number in range(count)]


def write(path: Path, messages: Iterable[Message]) -> Path:
    """Write messages as they go over the wire."""
    return write_bodies(path, (message.SerializeToString() for message in messages))


def write_bodies(path: Path, bodies: Iterable[bytes]) -> Path:
    """Write bodies, each with the prefix of gRPC."""
    path.write_bytes(b"".join(map(framed, bodies)))
    return path


def write_frame(path: Path) -> Path:
    """Write the request that h2load repeats."""
    return write(path, resolves()[:1])


def etcd_key(key: RouteKey | KeyMessage) -> bytes:
    """Name a route as etcd would."""
    return f"/routes/{key.tenant}/{key.service}/{key.env}/{key.version}".encode()


def zipf(count: int, draws: int, *, skew: float = 1.0, seed: int = 1) -> Sequence[int]:
    """Draw numbers below ``count`` by Zipf's law: the n-th likeliest as often as 1/n to the power of ``skew``.

    The likeliest are spread over the range, as popular routes are over a table.
    """
    chance = random.Random(seed)
    weights = list(itertools.accumulate(1 / (rank**skew) for rank in range(1, count + 1)))
    places = list(range(count))
    chance.shuffle(places)
    return [places[bisect.bisect(weights, chance.random() * weights[-1], hi=count - 1)] for _ in range(draws)]
