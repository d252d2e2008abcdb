"""The change sets that writers commit: each leaves the versions v0 to v2 of a family in place, so most are accepted."""

import itertools
import random
from collections.abc import Sequence

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_pb2 import RouteKey
from pointsman.v1.traffic_methods_pb2 import DeleteTrafficRequest, SetTrafficRequest
from pointsman.v1.traffic_pb2 import TrafficTarget

TENANT = "splits"
VERSIONS = ("v0", "v1", "v2")
# One that is created and deleted, and that no traffic names.
PASSING = "v3"
FAMILIES = 32
POINTS = 10_000
ZIPF = 1.1

_WEIGHTS = list(itertools.accumulate(1 / rank**ZIPF for rank in range(1, FAMILIES + 1)))
_NUMBERS = range(FAMILIES)


def family(number: int) -> str:
    """Name family ``number``."""
    return f"{TENANT}/s{number}/prod"


def choose_families(dice: random.Random, count: int) -> list[int]:
    """Choose families, by Zipf, each once."""
    found: dict[int, None] = {}
    while len(found) < count:
        found[dice.choices(_NUMBERS, cum_weights=_WEIGHTS)[0]] = None
    return list(found)


def beginning() -> list[pb.Mutation]:
    """Create every family, with an even split."""
    made = []
    for number in _NUMBERS:
        made += [
            pb.Mutation(create=pb.CreateRequest(key=_key(number, each), url="https://begin.internal"))
            for each in VERSIONS
        ]
        made.append(set_traffic(number, (3334, 3333, 3333), VERSIONS[:1]))
    return made


def change_set(dice: random.Random, request_id: str) -> list[pb.Mutation]:
    """Make the mutations of one commit, 2 to 100 of them."""
    url = f"https://{request_id}.internal:8443"
    if dice.random() < 0.04:
        return [each for number in _NUMBERS for each in _generation(dice, number, url)] + [
            set_traffic(number, _weights(dice)) for number in _NUMBERS[:4]
        ]
    made: list[pb.Mutation] = []
    for number in choose_families(dice, dice.choices((1, 2, 3, 8), (50, 25, 15, 10))[0]):
        made += dice.choices(RECIPES, COUNTS)[0](dice, number, url)
    return made


def set_traffic(number: int, weights: Sequence[int], fallbacks: Sequence[str] = ()) -> pb.Mutation:
    """Divide the traffic of a family between its versions."""
    targets = [TrafficTarget(version=each, weight=weight) for each, weight in zip(VERSIONS, weights, strict=True)]
    return pb.Mutation(
        set_traffic=SetTrafficRequest(
            tenant=TENANT, service=f"s{number}", env="prod", targets=targets, fallbacks=fallbacks
        )
    )


def _generation(dice: random.Random, number: int, url: str) -> list[pb.Mutation]:
    """Move all versions to one url: a reader who sees two of them sees a part."""
    order = dice.sample(VERSIONS, len(VERSIONS))
    return [pb.Mutation(update=pb.UpdateRequest(key=_key(number, each), url=url, allow_missing=True)) for each in order]


def _cut_over(dice: random.Random, number: int, url: str) -> list[pb.Mutation]:
    """Give everything to one version, and end the others."""
    place = dice.randrange(len(VERSIONS))
    version, weights = VERSIONS[place], [POINTS if each == place else 0 for each in range(len(VERSIONS))]
    return [
        pb.Mutation(update=pb.UpdateRequest(key=_key(number, version), url=url)),
        pb.Mutation(activate=pb.ActivateRequest(key=_key(number, version), exclusive=True)),
        set_traffic(number, weights, VERSIONS[:2]),
    ]


def _shift(dice: random.Random, number: int, _url: str) -> list[pb.Mutation]:
    fallbacks = dice.sample(VERSIONS, dice.randrange(3))
    return [
        set_traffic(number, _weights(dice), fallbacks),
        pb.Mutation(activate=pb.ActivateRequest(key=_key(number, dice.choice(VERSIONS)))),
    ]


def _toggle(dice: random.Random, number: int, _url: str) -> list[pb.Mutation]:
    first, second, third = dice.sample(VERSIONS, 3)
    return [
        pb.Mutation(activate=pb.ActivateRequest(key=_key(number, first))),
        pb.Mutation(deactivate=pb.DeactivateRequest(key=_key(number, second))),
        *([pb.Mutation(deactivate=pb.DeactivateRequest(key=_key(number, third)))] if dice.random() < 0.5 else []),
    ]


def _undivide(dice: random.Random, number: int, _url: str) -> list[pb.Mutation]:
    """Take the traffic away, which is refused where there is none; one version remains, or more."""
    version, exclusive = dice.choice(VERSIONS), dice.random() < 0.7
    return [
        pb.Mutation(activate=pb.ActivateRequest(key=_key(number, version), exclusive=exclusive)),
        pb.Mutation(delete_traffic=DeleteTrafficRequest(tenant=TENANT, service=f"s{number}", env="prod")),
    ]


def _recreate(dice: random.Random, number: int, url: str) -> list[pb.Mutation]:
    """Take a version out of the traffic, delete it, create it again, and give it some traffic."""
    return [
        set_traffic(number, (5000, 5000, 0))
        if dice.random() < 0.1  # it still names the version: refused
        else pb.Mutation(
            set_traffic=SetTrafficRequest(
                tenant=TENANT,
                service=f"s{number}",
                env="prod",
                targets=[TrafficTarget(version="v0", weight=4000), TrafficTarget(version="v1", weight=6000)],
            )
        ),
        pb.Mutation(delete=pb.DeleteRequest(key=_key(number, "v2"))),
        pb.Mutation(create=pb.CreateRequest(key=_key(number, "v2"), url=url, active=dice.random() < 0.8)),
        set_traffic(number, _weights(dice)),
    ]


def _pass(dice: random.Random, number: int, url: str) -> list[pb.Mutation]:
    """Create or delete one more version: half of it is refused, and all that comes with it."""
    key = _key(number, PASSING)
    generation = _generation(dice, number, url)
    if dice.random() < 0.5:
        return [*generation, pb.Mutation(create=pb.CreateRequest(key=key, url=url, active=dice.random() < 0.3))]
    return [*generation, pb.Mutation(delete=pb.DeleteRequest(key=key))]


RECIPES = (_generation, _cut_over, _shift, _toggle, _undivide, _recreate, _pass)
COUNTS = (40, 12, 16, 12, 4, 8, 8)


def _weights(dice: random.Random) -> tuple[int, int, int]:
    first, second = sorted(dice.sample(range(0, POINTS + 1, 500), 2))
    return first, second - first, POINTS - second


def _key(number: int, version: str) -> RouteKey:
    return RouteKey(tenant=TENANT, service=f"s{number}", env="prod", version=version)
