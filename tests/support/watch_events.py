"""Events of a watch, and a server of the protocol in memory."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from pointsman.v1 import route_pb2
from pointsman.v1 import watch_pb2 as pb

EPOCH = "epoch-1"


class State(NamedTuple):
    """What a table has for a key."""

    url: str
    active: bool
    revision: int


def key_message(key: str) -> route_pb2.RouteKey:
    tenant, service, env, version = key.split("/")
    return route_pb2.RouteKey(tenant=tenant, service=service, env=env, version=version)


def route(key: str, revision: int, url: str = "https://one.internal", *, active: bool = True) -> route_pb2.Route:
    message = route_pb2.Route(key=key_message(key), url=url, active=active, revision=revision, labels={"tier": "1"})
    message.create_time.FromSeconds(1_700_000_000)
    message.update_time.FromSeconds(1_700_000_000 + revision)
    return message


def change(key: str, revision: int, after: route_pb2.Route | None, end: int = 0) -> route_pb2.RouteChange:
    return route_pb2.RouteChange(
        key=key_message(key), revision=revision, after=after, change_set_end=end or revision, epoch=EPOCH
    )


def token(revision: int, epoch: str = EPOCH) -> pb.ResumeToken:
    return pb.ResumeToken(epoch=epoch, revision=revision)


def snapshot(revision: int, routes: Sequence[route_pb2.Route], epoch: str = EPOCH) -> pb.WatchResponse:
    return pb.WatchResponse(snapshot=pb.SnapshotBatch(as_of=token(revision, epoch), routes=routes))


def end_of_snapshot(revision: int, count: int, epoch: str = EPOCH) -> pb.WatchResponse:
    end = pb.EndOfSnapshot(as_of=token(revision, epoch), route_count=count)
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


class WatchServer:
    """A store with its history, and what a watch of one tenant sends of it."""

    def __init__(self, tenant: str) -> None:
        self._tenant = tenant
        self._epochs = 1
        self.revision = 0
        self.routes: dict[str, State] = {}
        self._sets: list[tuple[int, list[tuple[str, int, State | None]]]] = []
        self._compacted_to = 0
        self.states: dict[tuple[str, int], Mapping[str, State]] = {}
        """What the tenant had at each revision."""
        self._tables: dict[int, dict[str, State]] = {}
        self._keep_state()

    @property
    def epoch(self) -> str:
        return f"epoch-{self._epochs}"

    def write(self, wanted: Sequence[tuple[str, str | None, bool]]) -> None:
        """Make changes together: each is a key, its new URL (None: delete it), and whether it is active."""
        made: list[tuple[str, int, State | None]] = []
        for key, url, active in wanted:
            if url is None and key not in self.routes:
                continue
            self.revision += 1
            after = None if url is None else State(url, active, self.revision)
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

    def snapshot(self, size: int) -> Iterator[pb.WatchResponse]:
        """Return the events of a snapshot, in batches of ``size``."""
        mine = [route(key, state.revision, state.url, active=state.active) for key, state in self._mine().items()]
        for start in range(0, len(mine), size):
            yield snapshot(self.revision, mine[start : start + size], self.epoch)
        yield end_of_snapshot(self.revision, len(mine), self.epoch)

    def after(self, revision: int, size: int) -> Iterator[pb.WatchResponse]:
        """Return the events after ``revision``, of at most ``size`` changes each."""
        for end, made in self._sets:
            mine = [
                change(key, at, state and route(key, state.revision, state.url, active=state.active), end)
                for key, at, state in made
                if self.matches(key)
            ]
            if end > revision and mine:
                while len(mine) > size:
                    yield changes(end, mine[:size], self.epoch, partial=True)
                    mine = mine[size:]
                yield changes(end, mine, self.epoch)

    def _mine(self) -> dict[str, State]:
        return {key: state for key, state in sorted(self.routes.items()) if self.matches(key)}

    def _keep_state(self) -> None:
        self.states[self.epoch, self.revision] = self._mine()
        self._tables[self.revision] = dict(self.routes)
