"""Commits of any mutations, and their reverts: what was is there again, or the revert refuses and changes nothing."""

from random import Random

from hypothesis import strategies as st

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.traffic_methods_pb2 import SetTrafficRequest
from pointsman_server.rpc.interceptors.method_permissions import mutated
from tests.fuzz.calls import Rig
from tests.fuzz.hostile import fill

RIG = Rig()
KINDS = tuple(field.name for field in pb.Mutation.DESCRIPTOR.fields)
VERSIONS = ("live", "idle", "new")
MOST = 8

INPUTS = st.tuples(
    st.lists(st.sampled_from(KINDS), min_size=1, max_size=MOST),
    st.randoms(use_true_random=False),
    # Changes since, force, and whether it is named by its id or by its range.
    st.booleans(),
    st.booleans(),
    st.booleans(),
)


def check(value: tuple[list[str], Random, bool, bool, bool]) -> None:
    """Commit what is not refused, one mutation after the other; undo it, and do it again."""
    kinds, random, since, force, by_range = value
    RIG.start_over()
    before, first = RIG.content, 0
    for kind in kinds:
        done = _commit(_mutation(random, kind))
        first = first or done
    if not first:
        return
    last, after = RIG.revision, RIG.content
    if since:
        _commit(_mutation(random, random.choice(KINDS)))
    present = RIG.content
    response = _revert(pb.RevertRequest(first_revision=first, last_revision=last, force=force))
    if response is None:
        assert since, "nothing was changed since, and it is refused"
        assert RIG.content == present, "it is refused, and has changed something"
        return
    if since:
        return
    assert RIG.content == before, "it is not as it was before"
    if not response.change_set_id:
        return
    again = pb.RevertRequest(change_set_id=response.change_set_id)
    if by_range:
        again = pb.RevertRequest(first_revision=response.change_set_id, last_revision=response.revision)
    assert _revert(again) is not None
    assert RIG.content == after, "the revert of the revert is not what was done"


def _mutation(random: Random, kind: str) -> pb.Mutation:
    mutation = pb.Mutation()
    request = getattr(mutation, kind)
    request.SetInParent()
    fill(random, request)
    request.request_id = request.reason = ""
    # Most of them well-formed and in time, so that there is something to undo.
    if random.random() < 0.8:
        for name in ("expected_revision", "if_unused_for"):
            if name in request.DESCRIPTOR.fields_by_name:
                request.ClearField(name)
        if kind == "set_traffic":
            _divide(random, request)
    key = mutated(mutation)
    key.tenant, key.service, key.env = "a", "b", "c"
    if not kind.endswith("traffic"):
        key.version = random.choice(VERSIONS)
    return mutation


def _divide(random: Random, request: SetTrafficRequest) -> None:
    versions = random.choice((("live",), ("idle",), ("live", "idle"), ("idle", "live")))
    first = random.choice((0, 1, 3_333, 9_999)) if versions[1:] else 10_000
    del request.targets[:], request.fallbacks[:]
    for version, weight in zip(versions, (first, 10_000 - first), strict=False):
        request.targets.add(version=version, weight=weight)
    request.fallbacks.extend(random.choice(((), ("live",), ("idle",))))


def _commit(mutation: pb.Mutation) -> int:
    encoded = pb.CommitRequest(mutations=[mutation]).SerializeToString()
    response = RIG.judge_next("Commit", encoded)
    return pb.CommitResponse.FromString(response).change_set_id if response is not None else 0


def _revert(request: pb.RevertRequest) -> pb.RevertResponse | None:
    response = RIG.judge_next("Revert", request.SerializeToString())
    return pb.RevertResponse.FromString(response) if response is not None else None
