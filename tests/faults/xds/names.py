"""The names that xDS clients call by, and the change sets that change what those lead to."""

import itertools
import random
from collections.abc import Mapping, Sequence

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_pb2 import RouteKey
from pointsman.v1.traffic_methods_pb2 import SetTrafficRequest
from pointsman.v1.traffic_pb2 import TrafficTarget
from tests.faults.traffic.recipes import POINTS

TENANT, ENV = "reach", "prod"
# Always live; sometimes live; divided by traffic.
STEADY, SOMETIMES, DIVIDED = ("s0", "s1"), ("s2",), ("s3", "s4")
SERVICES = (*STEADY, *SOMETIMES, *DIVIDED)
VERSIONS = ("v1", "v2", "v3")
# That of the cut-over which follows each fault.
FIRST = VERSIONS[0]
UNKNOWN = f"v1~{ENV}~none~{TENANT}"
FAMILIES = tuple(f"{ENV}~{service}~{TENANT}" for service in SERVICES)
# Routes of families whose active version changes: so they are live at times.
ROUTES = tuple(f"{FIRST}~{ENV}~{service}~{TENANT}" for service in ("s0", "s2"))
NAMES = (*FAMILIES, *ROUTES, UNKNOWN)
# Some are only for the cut-overs that follow faults: then what answers tells that a client has it.
BACKENDS = ("one", "two", "three", "four")
AFTER_FAULTS = ("five", "six", "seven")
# Those whose URL has a name, which clients look up, and not an address.
BY_NAME = frozenset({"three", "four", "six"})

Urls = Mapping[str, str]


def beginning(urls: Urls) -> list[pb.Mutation]:
    """Create every version, the first ones active."""
    made = []
    for service, version in itertools.product(SERVICES, VERSIONS):
        url, active = urls[BACKENDS[0]], version == FIRST
        made.append(pb.Mutation(create=pb.CreateRequest(key=key(service, version), url=url, active=active)))
    return [*made, *(divide(service, (POINTS, 0, 0)) for service in DIVIDED)]


def after_a_fault(urls: Urls, backend: str) -> list[pb.Mutation]:
    """Lead every name to one backend that none led to before."""
    made = []
    for service in SERVICES:
        made.append(pb.Mutation(update=pb.UpdateRequest(key=key(service, FIRST), url=urls[backend])))
        made.append(pb.Mutation(activate=pb.ActivateRequest(key=key(service, FIRST), exclusive=True)))
    return [*made, *(divide(service, (POINTS, 0, 0)) for service in DIVIDED)]


def change_set(dice: random.Random, urls: Urls) -> list[pb.Mutation]:
    """Make the mutations of one commit."""
    service = dice.choice(SERVICES)
    url = urls[dice.choice(BACKENDS)]
    if service in STEADY:
        return cut_over(dice, service, url) if dice.random() < 0.7 else move(dice, service, url)
    if service in SOMETIMES:
        return end(service) if dice.random() < 0.4 else cut_over(dice, service, url)
    return shift(dice, service, url)


def cut_over(dice: random.Random, service: str, url: str) -> list[pb.Mutation]:
    """Make another version the active one, with another URL."""
    version = dice.choice(VERSIONS)
    return [
        pb.Mutation(update=pb.UpdateRequest(key=key(service, version), url=url)),
        pb.Mutation(activate=pb.ActivateRequest(key=key(service, version), exclusive=True)),
    ]


def move(dice: random.Random, service: str, url: str) -> list[pb.Mutation]:
    """Give all versions another URL, in any order."""
    order = dice.sample(VERSIONS, len(VERSIONS))
    return [pb.Mutation(update=pb.UpdateRequest(key=key(service, each), url=url)) for each in order]


def end(service: str) -> list[pb.Mutation]:
    """Leave no version active."""
    return [pb.Mutation(deactivate=pb.DeactivateRequest(key=key(service, each))) for each in VERSIONS]


def shift(dice: random.Random, service: str, url: str) -> list[pb.Mutation]:
    """Divide the traffic otherwise, and make one version active, or leave only fallbacks active."""
    version = dice.choice(VERSIONS)
    first, second = sorted(dice.sample(range(0, POINTS + 1, 1000), 2))
    weights = first, second - first, POINTS - second
    return [
        pb.Mutation(update=pb.UpdateRequest(key=key(service, version), url=url)),
        pb.Mutation(activate=pb.ActivateRequest(key=key(service, version), exclusive=dice.random() < 0.3)),
        divide(service, weights, dice.sample(VERSIONS, dice.randrange(3))),
    ]


def divide(service: str, weights: Sequence[int], fallbacks: Sequence[str] = ()) -> pb.Mutation:
    """Divide the traffic of a family between its versions."""
    targets = [TrafficTarget(version=each, weight=weight) for each, weight in zip(VERSIONS, weights, strict=True)]
    request = SetTrafficRequest(tenant=TENANT, service=service, env=ENV, targets=targets, fallbacks=fallbacks)
    return pb.Mutation(set_traffic=request)


def key(service: str, version: str) -> RouteKey:
    """Encode the key of a route."""
    return RouteKey(tenant=TENANT, service=service, env=ENV, version=version)
