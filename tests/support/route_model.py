"""Routes, traffic and their history, as plainly as possible: what the server is held to.

The state is a dict from keys to routes and traffic; that of traffic is ``tenant/service/env/``. Each change makes a new
state, and all of them are kept. Requests are the messages of the API; ``Refused`` has the reason of an error.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import islice
from typing import Any, NamedTuple

from pointsman.v1 import route_service_pb2 as pb

POINTS = 10_000


class Route(NamedTuple):
    url: str
    active: bool
    labels: Mapping[str, str]
    revision: int = 0


class Traffic(NamedTuple):
    targets: Mapping[str, int]
    fallbacks: Sequence[str]
    points: Sequence[str]
    """The version of each of the 10,000 points."""
    revision: int = 0


Thing = Route | Traffic | None
State = Mapping[str, Any]


class Draft(NamedTuple):
    kind: str
    key: str
    after: Any = None
    """A route or traffic, or None."""


class Change(NamedTuple):
    revision: int
    kind: str
    key: str
    before: Thing
    after: Thing
    set_id: int
    set_size: int


class Refused(Exception):
    """``reasons``: any of them will do. ``indexes``: the mutations of a commit that are refused."""

    def __init__(self, *reasons: str, indexes: Sequence[int] = ()) -> None:
        super().__init__(*reasons)
        self.reasons, self.indexes = reasons, indexes


class RouteModel:
    """A store that begins empty at a revision."""

    def __init__(self, revision: int) -> None:
        self.base = self.revision = revision
        self.compacted = 0
        self.states: dict[int, State] = {revision: {}}
        self.changes: list[Change] = []

    @property
    def now(self) -> State:
        return self.states[self.revision]

    def commit(self, mutations: Sequence[pb.Mutation], *, dry_run: bool = False) -> list[list[Change]]:
        """Carry out all or nothing; returns the changes of each."""
        state, steps, refused, revision = self.now, [], [], self.revision
        for number, mutation in enumerate(mutations):
            try:
                drafts = decide(state, mutation)
            except Refused as error:
                refused.append((number, error))
                continue
            steps.append(drafts)
            for draft in drafts:
                revision += 1
                state = _with(state, draft.key, _at(draft.after, revision))
        if refused:
            raise Refused(*refused[0][1].reasons, indexes=[number for number, _ in refused])
        changes = iter(self._record([draft for drafts in steps for draft in drafts], dry_run=dry_run))
        return [[next(changes) for _ in drafts] for drafts in steps]

    def revert(self, first: int, last: int, *, force: bool, dry_run: bool = False) -> list[Change]:
        """Make everything that the revisions changed as it was before them."""
        if first <= self.compacted:
            raise Refused("REVISION_COMPACTED")
        undone = [change for change in self.changes if first <= change.revision <= last]
        left = {change.key: change.after for change in undone}
        was = {change.key: self.states[first - 1].get(change.key) for change in reversed(undone)}
        was = {key: thing for key, thing in was.items() if content(thing) != content(self.now.get(key))}
        if not force and any(_revision(left[key]) != _revision(self.now.get(key)) for key in was):
            raise Refused("CHANGED_SINCE")
        after = {key: thing for key, thing in {**self.now, **was}.items() if thing is not None}
        if any(isinstance(thing, Traffic) and _absent(after, key, thing) for key, thing in after.items()):
            raise Refused("ROUTE_IN_TRAFFIC", "TARGET_NOT_FOUND")
        drafts = [Draft(_kind(self.now.get(key), thing), key, thing) for key, thing in was.items()]
        return self._record(sorted(drafts, key=self._phase), dry_run=dry_run)

    def import_(self, request: pb.ImportRequest) -> list[Change]:
        """Create and change routes; those that become inactive come last."""
        drafts, reasons = [], []
        for each in request.routes:
            key, now = text(each.key), self.now.get(text(each.key))
            if each.expected_revision and _revision(now) != each.expected_revision:
                reasons.append("REVISION_MISMATCH")
            if now and request.existing == pb.EXISTING_ROUTES_REFUSE:
                reasons.append("ROUTE_EXISTS")
            labels = dict(each.labels.labels) if each.HasField("labels") else now.labels if now else {}
            active = each.active if each.HasField("active") else now.active if now else True
            wanted = Route(each.url, active, labels)
            if now is None or (content(now) != content(wanted) and request.existing != pb.EXISTING_ROUTES_SKIP):
                drafts.append(Draft(_kind(now, wanted), key, wanted))
        if reasons:
            raise Refused(*reasons)
        leaving = [each for each in drafts if self.now.get(each.key, each.after).active > each.after.active]
        return self._record([each for each in drafts if each not in leaving] + leaving)

    def at(self, revision: int) -> State:
        """Return the state right after a revision."""
        if revision < self.compacted:
            raise Refused("REVISION_COMPACTED")
        if revision > self.revision:
            raise Refused("REVISION_IN_FUTURE")
        return self.states[revision]

    def _phase(self, draft: Draft) -> tuple[int, str]:
        before, after = self.now.get(draft.key), draft.after
        if draft.key.endswith("/"):
            return 1, draft.key
        return (3 if after is None else 2 if before and before.active > after.active else 0), draft.key

    def _record(self, drafts: Sequence[Draft], *, dry_run: bool = False) -> list[Change]:
        made, states, first = [], dict(self.states), self.revision + 1
        for revision, (kind, key, after) in enumerate(drafts, first):
            before, now = states[revision - 1], _at(after, revision)
            made.append(Change(revision, kind, key, before.get(key), now, first, len(drafts)))
            states[revision] = _with(before, key, now)
        if not dry_run:
            self.states, self.revision = states, self.revision + len(drafts)
            self.changes += made
        return made


def decide(state: State, mutation: pb.Mutation) -> list[Draft]:
    """Decide what a mutation changes."""
    name = mutation.WhichOneof("mutation") or ""
    return DECISIONS[name](state, getattr(mutation, name))


def _create(state: State, request: Any) -> list[Draft]:
    if text(request.key) in state:
        raise Refused("ROUTE_EXISTS")
    active = request.active if request.HasField("active") else True
    return [Draft("CREATED", text(request.key), Route(request.url, active, dict(request.labels)))]


def _update(state: State, request: Any) -> list[Draft]:
    labels = dict(request.labels.labels) if request.HasField("labels") else None
    if request.allow_missing and text(request.key) not in state:
        return [Draft("CREATED", text(request.key), Route(request.url, True, labels or {}))]
    route = _route(state, request)
    wanted = route._replace(url=request.url if request.HasField("url") else route.url)
    wanted = wanted._replace(labels=route.labels if labels is None else labels)
    return [Draft("UPDATED", text(request.key), wanted)] if wanted != route else []


def _activate(state: State, request: Any) -> list[Draft]:
    route, key = _route(state, request), text(request.key)
    drafts = [] if route.active else [Draft("ACTIVATED", key, route._replace(active=True))]
    if request.exclusive:
        others = sorted(each for each in routes_of(state, family_of(key)) if each != key and state[each].active)
        drafts += [Draft("DEACTIVATED", each, state[each]._replace(active=False)) for each in others]
    return drafts


def _deactivate(state: State, request: Any) -> list[Draft]:
    route = _route(state, request)
    return [Draft("DEACTIVATED", text(request.key), route._replace(active=False))] if route.active else []


def _delete(state: State, request: Any) -> list[Draft]:
    _route(state, request)
    key = text(request.key)
    traffic = state.get(f"{family_of(key)}/")
    if traffic and request.key.version in {*traffic.targets, *traffic.fallbacks}:
        raise Refused("ROUTE_IN_TRAFFIC")
    return [Draft("DELETED", key)]


def _set_traffic(state: State, request: Any) -> list[Draft]:
    key = f"{request.tenant}/{request.service}/{request.env}/"
    if request.expected_revision:
        _traffic(state, key, request.expected_revision)
    targets, fallbacks = {each.version: each.weight for each in request.targets}, list(request.fallbacks)
    before = state.get(key)
    if before and list(before.targets.items()) == list(targets.items()) and before.fallbacks == fallbacks:
        return []
    wanted = Traffic(targets, fallbacks, allot(targets, before.points if before else [""] * POINTS))
    if _absent(state, key, wanted):
        raise Refused("TARGET_NOT_FOUND")
    return [Draft("TRAFFIC_SET", key, wanted)]


def _delete_traffic(state: State, request: Any) -> list[Draft]:
    key = f"{request.tenant}/{request.service}/{request.env}/"
    _traffic(state, key, request.expected_revision)
    return [Draft("TRAFFIC_DELETED", key)]


DECISIONS: Mapping[str, Callable[[State, Any], list[Draft]]] = {
    "create": _create,
    "update": _update,
    "activate": _activate,
    "deactivate": _deactivate,
    "delete": _delete,
    "set_traffic": _set_traffic,
    "delete_traffic": _delete_traffic,
}


def allot(targets: Mapping[str, int], before: Sequence[str]) -> list[str]:
    """Leave every point that may stay where it is, and give the others to whom they are owed, in order."""
    owed, points = dict(targets), list(before)
    for point, version in enumerate(points):
        if owed.get(version, 0):
            owed[version] -= 1
        else:
            points[point] = ""
    heirs = iter([version for version in targets for _ in range(owed[version])])
    return [version or next(heirs) for version in points]


def select(state: State, family: str, sticky_key: str) -> tuple[str, str, list[str]] | None:
    """Choose: version, rule, and what was passed over. None without an active version; raises Refused if ambiguous."""
    active = sorted(key.rpartition("/")[2] for key in routes_of(state, family) if state[key].active)
    traffic = state.get(f"{family}/")
    if traffic is None:
        if len(active) > 1:
            raise Refused("AMBIGUOUS_VERSION")
        return (active[0], "ONLY_ACTIVE", []) if active else None
    passed: list[str] = []
    if left := [version for version in traffic.points if version in active]:
        row = words(f"{family}\n{sticky_key}")
        for version in (traffic.points[word % POINTS] for word in islice(row, 64)):
            if version in active:
                return version, "SPLIT", passed
            passed += [version] if version not in passed else []
        return left[next(row) % len(left)], "SPLIT", passed
    for version in [*(each for each, weight in traffic.targets.items() if weight), *traffic.fallbacks]:
        if version in active:
            return version, "FALLBACK", passed
        passed += [version] if version not in passed else []
    return None


def words(caller: str) -> Iterator[int]:
    """Yield the words of a caller, four of each digest."""
    for number in range(18):
        digest = sha256((f"{caller}\n{number}" if number else caller).encode()).digest()
        yield from (int.from_bytes(digest[place : place + 8]) for place in range(0, 32, 8))


def text(key: Any) -> str:
    return f"{key.tenant}/{key.service}/{key.env}/{key.version}"


def family_of(key: str) -> str:
    return key.rpartition("/")[0]


def routes_of(state: State, family: str) -> list[str]:
    return [key for key, thing in state.items() if family_of(key) == family and isinstance(thing, Route)]


def content(thing: Thing) -> object:
    """Return what a thing is, without its revision."""
    return thing and thing[:-1]


def _revision(thing: Thing) -> int:
    return thing.revision if thing else 0


def _at(thing: Thing, revision: int) -> Thing:
    return thing and thing._replace(revision=revision)


def _with(state: State, key: str, thing: Thing) -> State:
    others = {name: other for name, other in state.items() if name != key}
    return {**others, key: thing} if thing else others


def _absent(state: State, key: str, traffic: Traffic) -> set[str]:
    return {version for version in (*traffic.targets, *traffic.fallbacks) if f"{key}{version}" not in state}


def _kind(before: Thing, after: Thing) -> str:
    if isinstance(before, Traffic) or isinstance(after, Traffic):
        return "TRAFFIC_SET" if after else "TRAFFIC_DELETED"
    if before is None or after is None:
        return "DELETED" if after is None else "CREATED"
    if (before.url, before.labels) != (after.url, after.labels):
        return "UPDATED"
    return "ACTIVATED" if after.active else "DEACTIVATED"


def _route(state: State, request: Any) -> Route:
    route: Route | None = state.get(text(request.key))
    if route is None:
        raise Refused("ROUTE_NOT_FOUND")
    if request.expected_revision and request.expected_revision != route.revision:
        raise Refused("REVISION_MISMATCH")
    return route


def _traffic(state: State, key: str, expected: int) -> Traffic:
    traffic: Traffic | None = state.get(key)
    if traffic is None:
        raise Refused("TRAFFIC_NOT_FOUND")
    if expected and expected != traffic.revision:
        raise Refused("REVISION_MISMATCH")
    return traffic
