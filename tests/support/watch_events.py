"""Events of a watch, and a server of the protocol in memory."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from pointsman.v1 import route_pb2, traffic_pb2
from pointsman.v1 import watch_pb2 as pb

EPOCH = "epoch-1"


class State(NamedTuple):
    """What a table has for a key."""

    url: str
    active: bool
    revision: int


class Division(NamedTuple):
    """How the calls of a family are to be divided."""

    weights: tuple[tuple[str, int], ...]
    fallbacks: tuple[str, ...] = ()


class TrafficState(NamedTuple):
    """What a table has for a family."""

    division: Division
    revision: int


def key_message(key: str) -> route_pb2.RouteKey:
    tenant, service, env, version = [*key.split("/"), ""][:4]
    return route_pb2.RouteKey(tenant=tenant, service=service, env=env, version=version)


def route(key: str, revision: int, url: str = "https://one.internal", *, active: bool = True) -> route_pb2.Route:
    message = route_pb2.Route(key=key_message(key), url=url, active=active, revision=revision, labels={"tier": "1"})
    message.create_time.FromSeconds(1_700_000_000)
    message.update_time.FromSeconds(1_700_000_000 + revision)
    return message


def traffic(family: str, revision: int, division: Division) -> traffic_pb2.Traffic:
    tenant, service, env = family.split("/")
    return traffic_pb2.Traffic(
        tenant=tenant,
        service=service,
        env=env,
        targets=[traffic_pb2.TrafficTarget(version=version, weight=weight) for version, weight in division.weights],
        fallbacks=division.fallbacks,
        slices=[traffic_pb2.TrafficSlice(version=version, size=size) for version, size in division.weights if size],
        revision=revision,
    )


def traffic_change(family: str, revision: int, after: Division | None, end: int = 0) -> route_pb2.RouteChange:
    return route_pb2.RouteChange(
        key=key_message(family),
        kind=route_pb2.CHANGE_KIND_TRAFFIC_SET if after else route_pb2.CHANGE_KIND_TRAFFIC_DELETED,
        revision=revision,
        traffic_after=traffic(family, revision, after) if after else None,
        change_set_end=end or revision,
        epoch=EPOCH,
    )


def opened() -> pb.WatchResponse:
    return pb.WatchResponse(opened=pb.Opened(traffic=True))


def change(key: str, revision: int, after: route_pb2.Route | None, end: int = 0) -> route_pb2.RouteChange:
    return route_pb2.RouteChange(
        key=key_message(key), revision=revision, after=after, change_set_end=end or revision, epoch=EPOCH
    )


def token(revision: int, epoch: str = EPOCH) -> pb.ResumeToken:
    return pb.ResumeToken(epoch=epoch, revision=revision)


def snapshot(
    revision: int,
    routes: Sequence[route_pb2.Route],
    epoch: str = EPOCH,
    traffic: Sequence[traffic_pb2.Traffic] = (),
) -> pb.WatchResponse:
    return pb.WatchResponse(snapshot=pb.SnapshotBatch(as_of=token(revision, epoch), routes=routes, traffic=traffic))


def end_of_snapshot(revision: int, count: int, epoch: str = EPOCH, traffic_count: int = 0) -> pb.WatchResponse:
    end = pb.EndOfSnapshot(as_of=token(revision, epoch), route_count=count, traffic_count=traffic_count)
    return pb.WatchResponse(end_of_snapshot=end)


def changes(
    revision: int, made: Sequence[route_pb2.RouteChange], epoch: str = EPOCH, *, partial: bool = False
) -> pb.WatchResponse:
    as_of = None if partial else token(revision, epoch)
    return pb.WatchResponse(changes=pb.ChangeSet(changes=made, as_of=as_of, partial=partial))


def checkpoint(
    revision: int, epoch: str = EPOCH, *, age: float = 0.0, server_time: float = 0.0, report: bool = False
) -> pb.WatchResponse:
    event = pb.Checkpoint(as_of=token(revision, epoch), report_progress=report)
    event.age.FromMicroseconds(int(age * 1e6))
    event.server_time.FromMicroseconds(int(server_time * 1e6))
    return pb.WatchResponse(checkpoint=event)


def reset(reason: pb.Reset.Reason.ValueType = pb.Reset.REASON_REVISION_COMPACTED) -> pb.WatchResponse:
    return pb.WatchResponse(reset=pb.Reset(reason=reason))


class RefusedResume(Exception):
    """The reason with which the server refuses to resume."""


Entry = State | TrafficState
Write = tuple[str, str | Division | None, bool]
"""A key, its new URL, and whether it is active; or a family and its division. None deletes it."""


class WatchServer:
    """A store with its history, and what a watch of one tenant sends of it: with ``traffic``, or as of a release before
    it.
    """

    def __init__(self, tenant: str) -> None:
        self._tenant = tenant
        self._epochs = 1
        self.revision = 0
        self.routes: dict[str, Entry] = {}
        self._sets: list[tuple[int, list[tuple[str, int, Entry | None]]]] = []
        self._compacted_to = 0
        self.states: dict[tuple[str, int], Mapping[str, Entry]] = {}
        """What the tenant had at each revision: routes, and traffic by families."""
        self._tables: dict[int, dict[str, Entry]] = {}
        self._keep_state()

    @property
    def epoch(self) -> str:
        return f"epoch-{self._epochs}"

    def write(self, wanted: Sequence[Write]) -> None:
        """Make changes together."""
        made: list[tuple[str, int, Entry | None]] = []
        for key, value, active in wanted:
            if value is None and key not in self.routes:
                continue
            self.revision += 1
            after: Entry | None = None
            if isinstance(value, Division):
                after = TrafficState(value, self.revision)
            elif value is not None:
                after = State(value, active, self.revision)
            if after is None:
                del self.routes[key]
            else:
                self.routes[key] = after
            made.append((key, self.revision, after))
        if made:
            self._sets.append((self.revision, made))
        self._keep_state()

    def compact(self) -> None:
        """Lose all history."""
        self._sets.clear()
        self._compacted_to = self.revision

    def restore(self, back: int) -> None:
        """Go back by some change sets, under a new epoch."""
        end = self._sets[-back - 1][0] if len(self._sets) > back else self._compacted_to
        self._sets = [each for each in self._sets if each[0] <= end]
        self._tables = {revision: table for revision, table in self._tables.items() if revision <= end}
        self._epochs += 1
        self.revision, self.routes = end, dict(self._tables[end])
        self._keep_state()

    def matches(self, key: str) -> bool:
        return key.startswith(f"{self._tenant}/")

    def covers(self, position: pb.ResumeToken) -> bool:
        return position.epoch == self.epoch and position.revision >= self._compacted_to

    def check(self, position: pb.ResumeToken) -> None:
        """Raise RefusedResume when a stream cannot go on from ``position``."""
        if position.epoch != self.epoch:
            raise RefusedResume("EPOCH_CHANGED")
        if position.revision < self._compacted_to:
            raise RefusedResume("REVISION_COMPACTED")

    def snapshot(self, size: int, *, with_traffic: bool = False) -> Iterator[pb.WatchResponse]:
        """Return the events of a snapshot, in batches of ``size``."""
        states = self._mine()
        mine = [_route(key, state) for key, state in states.items() if isinstance(state, State)]
        for start in range(0, len(mine), size):
            yield snapshot(self.revision, mine[start : start + size], self.epoch)
        divided: list[traffic_pb2.Traffic] = []
        if with_traffic:
            found = ((family, state) for family, state in states.items() if isinstance(state, TrafficState))
            divided = [traffic(family, state.revision, state.division) for family, state in found]
        for start in range(0, len(divided), size):
            yield snapshot(self.revision, [], self.epoch, divided[start : start + size])
        yield end_of_snapshot(self.revision, len(mine), self.epoch, len(divided))

    def after(self, revision: int, size: int, *, with_traffic: bool = False) -> Iterator[pb.WatchResponse]:
        """Return the events after ``revision``, of at most ``size`` changes each."""
        for end, made in self._sets:
            mine = [
                _change(key, at, state, end)
                for key, at, state in made
                if self.matches(key) and (with_traffic or key.count("/") == 3)
            ]
            if end > revision and mine:
                while len(mine) > size:
                    yield changes(end, mine[:size], self.epoch, partial=True)
                    mine = mine[size:]
                yield changes(end, mine, self.epoch)

    def _mine(self) -> dict[str, Entry]:
        return {key: state for key, state in sorted(self.routes.items()) if self.matches(key)}

    def _keep_state(self) -> None:
        self.states[self.epoch, self.revision] = self._mine()
        self._tables[self.revision] = dict(self.routes)


def _route(key: str, state: State) -> route_pb2.Route:
    return route(key, state.revision, state.url, active=state.active)


def _change(key: str, at: int, state: Entry | None, end: int) -> route_pb2.RouteChange:
    if key.count("/") == 2:
        return traffic_change(key, at, state.division if isinstance(state, TrafficState) else None, end)
    return change(key, at, _route(key, state) if isinstance(state, State) else None, end)
