"""From arguments to the messages about traffic and change sets: as ``requests`` builds the others."""

from collections.abc import Iterable, Iterator, Mapping
from functools import singledispatch

from pointsman.change_sets import (
    Activate,
    Create,
    Deactivate,
    Delete,
    DeleteTraffic,
    Mutation,
    SetTraffic,
    Update,
    Weights,
)
from pointsman.errors import FieldViolation, InvalidArgument
from pointsman.keys import FamilyKey, RouteKey, as_family
from pointsman.memory import Floor
from pointsman.results import Consistency, Target
from pointsman.rpc import requests
from pointsman.rpc.requests import Moment, as_of_message, build, consistency_of, epoch_of, id_of
from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1 import traffic_methods_pb2 as traffic_pb
from pointsman.v1 import traffic_pb2


def select(
    key: FamilyKey | str, sticky_key: str, floor: Floor, consistency: Consistency, as_of: Moment | None
) -> pb.SelectRequest:
    """Build a Select."""
    return build(
        pb.SelectRequest,
        **_family(key),
        sticky_key=sticky_key,
        min_revision=floor.revision,
        epoch=epoch_of(floor),
        consistency=consistency_of(consistency),
        as_of=as_of_message(as_of),
    )


def batch_select(
    selections: Iterable[tuple[FamilyKey | str, str]], floor: Floor, consistency: Consistency
) -> Iterator[pb.BatchSelectRequest]:
    """Build as many BatchSelect as the callers need, in their order."""
    every = [build(pb.Selection, **_family(key), sticky_key=sticky_key) for key, sticky_key in selections]
    for start in range(0, len(every), requests.BATCH_LIMIT):
        yield build(
            pb.BatchSelectRequest,
            selections=every[start : start + requests.BATCH_LIMIT],
            min_revision=floor.revision,
            epoch=epoch_of(floor),
            consistency=consistency_of(consistency),
        )


def explain(key: RouteKey | FamilyKey | str, sticky_key: str, subject: str) -> pb.ExplainRequest:
    """Build an Explain: of a Resolve for a key with a version, of a Select for one without."""
    if isinstance(key, str):
        key = RouteKey.parse(key) if key.count("/") > 2 else FamilyKey.parse(key)
    version = key.version if isinstance(key, RouteKey) else ""
    family = key.family if isinstance(key, RouteKey) else key
    return build(pb.ExplainRequest, **_family(family), version=version, sticky_key=sticky_key, subject=subject)


def set_traffic(
    key: FamilyKey | str,
    weights: Weights,
    fallbacks: Iterable[str],
    expected_revision: int,
    request_id: str,
    reason: str,
) -> traffic_pb.SetTrafficRequest:
    """Build a SetTraffic."""
    return build(
        traffic_pb.SetTrafficRequest,
        **_family(key),
        targets=[_target(target) for target in targets_of(weights)],
        fallbacks=list(fallbacks),
        expected_revision=expected_revision,
        request_id=id_of(request_id),
        reason=reason,
    )


def get_traffic(key: FamilyKey | str, as_of: Moment | None) -> traffic_pb.GetTrafficRequest:
    """Build a GetTraffic."""
    return build(traffic_pb.GetTrafficRequest, **_family(key), as_of=as_of_message(as_of))


def list_traffic(tenant: str, service: str, env: str, page_size: int) -> traffic_pb.ListTrafficRequest:
    """Build a ListTraffic for the first page; empty means any."""
    return build(traffic_pb.ListTrafficRequest, tenant=tenant, service=service, env=env, page_size=page_size)


def delete_traffic(
    key: FamilyKey | str, expected_revision: int, request_id: str, reason: str
) -> traffic_pb.DeleteTrafficRequest:
    """Build a DeleteTraffic."""
    return build(
        traffic_pb.DeleteTrafficRequest,
        **_family(key),
        expected_revision=expected_revision,
        request_id=id_of(request_id),
        reason=reason,
    )


def commit(mutations: Iterable[Mutation], dry_run: bool, request_id: str, reason: str) -> pb.CommitRequest:
    """Build a Commit. Raises InvalidArgument, naming the mutation."""
    return build(
        pb.CommitRequest,
        mutations=[_numbered(number, mutation) for number, mutation in enumerate(mutations)],
        dry_run=dry_run,
        request_id=id_of(request_id),
        reason=reason,
    )


def revert(
    what: int | tuple[int, int], force: bool, dry_run: bool, epoch: str, request_id: str, reason: str
) -> pb.RevertRequest:
    """Build a Revert of a change set, or of a range of revisions with both ends."""
    fields = (
        {"change_set_id": what}
        if isinstance(what, int)
        else dict(zip(("first_revision", "last_revision"), what, strict=True))
    )
    return build(
        pb.RevertRequest,
        **fields,
        force=force,
        dry_run=dry_run,
        epoch=epoch,
        request_id=id_of(request_id),
        reason=reason,
    )


def targets_of(weights: Weights) -> list[Target]:
    """Return the versions with their weights, in order."""
    if isinstance(weights, Mapping):
        return [Target(version, weight) for version, weight in weights.items()]
    return list(weights)


def _numbered(number: int, mutation: Mutation) -> pb.Mutation:
    try:
        return mutation_message(mutation)
    except InvalidArgument as error:
        violations = [
            FieldViolation(f"mutations[{number}].{each.field}", each.description) for each in error.violations
        ]
        raise InvalidArgument(
            f"mutations[{number}]: {error.message}", reason=error.reason, violations=violations
        ) from None


@singledispatch
def mutation_message(mutation: Mutation) -> pb.Mutation:
    """Build one step of a Commit; the request id and the reason are those of the Commit."""
    raise TypeError(f"{type(mutation).__name__} is no mutation: give Create, Update, Activate, Deactivate, Delete, …")


def _without_id(field: str, request: object) -> pb.Mutation:
    message = build(pb.Mutation, **{field: request})
    getattr(message, field).ClearField("request_id")
    return message


@mutation_message.register
def _(mutation: Create) -> pb.Mutation:
    made = requests.create(mutation.key, mutation.url, mutation.labels, mutation.active, "", "")
    return _without_id("create", made)


@mutation_message.register
def _(mutation: Update) -> pb.Mutation:
    made = requests.update(
        mutation.key, mutation.url, mutation.labels, mutation.expected_revision, mutation.allow_missing, "", ""
    )
    return _without_id("update", made)


@mutation_message.register
def _(mutation: Activate) -> pb.Mutation:
    return _without_id(
        "activate", requests.activate(mutation.key, mutation.expected_revision, mutation.exclusive, "", "")
    )


@mutation_message.register
def _(mutation: Deactivate) -> pb.Mutation:
    made = requests.deactivate(mutation.key, mutation.expected_revision, "", "", mutation.if_unused_for)
    return _without_id("deactivate", made)


@mutation_message.register
def _(mutation: Delete) -> pb.Mutation:
    made = requests.delete(mutation.key, mutation.expected_revision, "", "", mutation.if_unused_for)
    return _without_id("delete", made)


@mutation_message.register
def _(mutation: SetTraffic) -> pb.Mutation:
    made = set_traffic(mutation.key, mutation.weights, mutation.fallbacks, mutation.expected_revision, "", "")
    return _without_id("set_traffic", made)


@mutation_message.register
def _(mutation: DeleteTraffic) -> pb.Mutation:
    return _without_id("delete_traffic", delete_traffic(mutation.key, mutation.expected_revision, "", ""))


def _target(target: Target) -> traffic_pb2.TrafficTarget:
    return build(traffic_pb2.TrafficTarget, version=target.version, weight=target.weight)


def _family(key: FamilyKey | str) -> dict[str, str]:
    name = as_family(key)
    return {"tenant": name.tenant, "service": name.service, "env": name.env}
