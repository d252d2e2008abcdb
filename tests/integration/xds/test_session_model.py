"""Any client, with any delays, has in the end exactly what it wants, and nothing that it uses is taken from it before.

The model of the client does what real ones may do: subscribe and unsubscribe, refuse responses or parts of them, answer
late or twice, and reconnect with versions of another stream. The server may write at any time.
"""

from collections import Counter
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from pointsman_server.xds.names import WILDCARD, root_of
from pointsman_server.xds.protocol.types import ResourceType
from pointsman_server.xds.resource import Resource
from pointsman_server.xds.session import Push, Session
from tests.support.xds_model_client import ClientType, ServerType, Wire
from tests.support.xds_world import ALL, CDS, EDS, LDS, RDS, World

ROOTS = ("a", "b", "c")
NAMES: dict[ResourceType, tuple[str, ...]] = {
    LDS: ("a", "b", "xdstp://x/envoy.config.listener.v3.Listener/a", "unknown"),
    RDS: ("a", "b", "c", ALL),
    CDS: ("a", "a~~1", "a~~k0", "b", "c", "unknown~~2"),
    EDS: ("a", "a~~1", "b", "c", "b~~1"),
}
# What clients ask for usually.
GRPC = dict.fromkeys(ResourceType, ROOTS)
ENVOY: dict[ResourceType, tuple[str, ...]] = {CDS: (), EDS: (*ROOTS, "a~~1"), LDS: (WILDCARD,), RDS: (ALL,)}
MOVES = (*("receive", "write", "accept") * 3, "refuse", "accept a part")
PARTS = ("listener", "route", "cluster", "endpoints")


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.client = {kind: ClientType(kind) for kind in ResourceType}
        self.streams = 0
        self.warms = False

    @initialize(
        warms=st.booleans(),
        lingers=st.booleans(),
        prepares=st.booleans(),
        roots=st.sets(st.sampled_from(ROOTS)),
        usual=st.booleans(),
    )
    def begin(self, warms: bool, lingers: bool, prepares: bool, roots: set[str], usual: bool) -> None:
        self.warms, self.world.lingers = warms, lingers
        self.world.prepared = {"a"} if prepares else set()
        for root in sorted(roots):
            self.world.set(root)
        self.connect()
        if usual:
            for kind, names in (ENVOY if warms else GRPC).items():
                self.ask(kind, names)
            self.settle()

    def connect(self) -> None:
        self.streams += 1
        self.session = Session(self.world, warms=self.warms, nonces=f"{self.streams}-")
        self.server = {kind: ServerType(kind) for kind in ResourceType}
        self.wire = Wire()
        self.old_nonces: list[str] = []
        self.refuses = False
        self.lingering: list[Any] = []

    # The client

    @rule(kind=st.sampled_from(ResourceType), data=st.data())
    def subscribe(self, kind: ResourceType, data: st.DataObject) -> None:
        possible = (*NAMES[kind], WILDCARD) if kind.is_complete else NAMES[kind]
        self.ask(kind, tuple(data.draw(st.lists(st.sampled_from(possible), max_size=4), label="names")))

    def ask(self, kind: ResourceType, names: tuple[str, ...]) -> None:
        self.client[kind].ask(names)
        self.wire.requests.append(self.client[kind].request())

    @rule(moves=st.lists(st.sampled_from(MOVES), min_size=1, max_size=8))
    def proceed(self, moves: list[str]) -> None:
        """Let the client and the server read and write, in any order."""
        for move in moves:
            if move == "write":
                self.write()
            elif move == "receive":
                self.receive()
            else:
                self.read(move)

    @rule()
    def come_to_rest(self) -> None:
        self.settle()
        self.check_has_all(more=True)

    def read(self, verdict: str) -> None:
        if not self.wire.responses:
            return
        push = self.wire.responses.popleft()
        its = self.client[push.kind]
        self.old_nonces.append(its.nonce)
        its.nonce = push.nonce
        accepted = {"accept": push.resources, "accept a part": push.resources[:1]}.get(verdict)
        its.take(push, accepted)
        if verdict == "accept":
            its.version = push.version
        else:
            self.refuses = True
        self.wire.requests.append(its.request(error=None if verdict == "accept" else "no"))

    @rule(kind=st.sampled_from(ResourceType))
    def repeat(self, kind: ResourceType) -> None:
        """Say the same again."""
        if self.client[kind].asked:
            self.wire.requests.append(self.client[kind].request())

    @precondition(lambda self: self.old_nonces)
    @rule(kind=st.sampled_from(ResourceType), data=st.data(), error=st.sampled_from((None, "late")))
    def answer_late(self, kind: ResourceType, data: st.DataObject, error: str | None) -> None:
        """Answer a response that was answered already, or one of another type."""
        nonce = data.draw(st.sampled_from(self.old_nonces), label="nonce")
        if self.client[kind].asked and nonce != self.client[kind].nonce:
            self.wire.requests.append(self.client[kind].request(nonce=nonce, error=error))

    @rule(data=st.data())
    def reconnect(self, data: st.DataObject) -> None:
        """Begin a stream with this or another server: they have the same."""
        order = data.draw(st.permutations(list(ResourceType)), label="order")
        self.connect()
        for kind in order:
            its = self.client[kind]
            its.nonce, its.explicit = "", bool(its.names)
            its.refused.clear()
            if its.asked:
                self.wire.requests.append(its.request())

    # The server

    def receive(self) -> None:
        if not self.wire.requests:
            return
        said = self.wire.requests.popleft()
        kind = ResourceType(said.type_url)
        its = self.server[kind]
        its.hear(said, self.world)
        self.session.receive(said)
        assert self.session.roots == Counter(root_of(name) for each in self.server.values() for name in each.named)

    def write(self, *, hold: bool = True) -> None:
        # A stream takes nothing after a request unless it is.
        due = self.session.is_due
        for push in self.session.take(hold=hold):
            assert due
            its = self.server[push.kind]
            for resource in push.resources:
                served = self.world.resource(push.kind, resource.name)
                prepares = served.marker in self.server[CDS].named and resource == served.preparation
                assert resource == served or prepares or self.is_left(push.kind, resource)
            self.check_names(push)
            if hold:
                self.check_order(push)
            if push.kind is CDS and self.warms:
                endpoints = self.server[EDS]
                changed = {each.name for each in push.resources if its.lacks(each)}
                endpoints.again |= {name for name in changed & endpoints.named if not self.is_kept(name)}
            its.write(push)
            self.wire.responses.append(push)
        if began := self.session.lingering():
            self.lingering.append(began)

    @precondition(lambda self: self.lingering)
    @rule()
    def release(self) -> None:
        self.session.release(self.lingering.pop(0))

    def is_left(self, kind: ResourceType, resource: Resource) -> bool:
        """Return whether the client keeps a resource for a while, because what it leads to has closed."""
        had = self.server[kind].sent.get(resource.name) == resource and resource.name not in self.server[kind].again
        return had and self.world.resource(kind, resource.name).closed

    def is_kept(self, name: str) -> bool:
        """Return whether endpoints stay although their cluster needs them no more."""
        its = self.server[EDS]
        had = name in its.kept or (name in its.sent and name not in its.again)
        return had and not self.world.resource(EDS, name).live

    def check_names(self, push: Push) -> None:
        its, names = self.server[push.kind], {each.name for each in push.resources}
        wanted = its.of(self.world)
        if not push.kind.is_complete:
            assert names <= wanted
            return
        assert names >= wanted, "a resource that is wanted is withdrawn"
        leaving = names - wanted
        assert not leaving or (push.kind is CDS and its.all), "a resource that nobody asked for"
        closed = [each for each in push.resources if each.name in leaving and each.closed and its.lacks(each)]
        assert not any(each.name in its.sent for each in closed), "a cluster closes while it is leaving"
        removed = its.sent.keys() - names
        if push.kind is CDS and its.all and removed:
            routes = self.server[RDS]
            assert not routes.unanswered, "a cluster is removed before the routes to it"
            assert not routes.refused, "a cluster is removed, but not the routes to it"
            assert not self.unsent(RDS), "a cluster is removed before the routes to it"

    def unsent(self, kind: ResourceType) -> set[str]:
        """Return what a client lacks of what it wants, by name."""
        its = self.server[kind]
        names = {name for name in its.of(self.world) if its.lacks(self.world.resource(kind, name))}
        had = names & (its.sent.keys() | its.kept)
        closed = {name for name in had if self.world.resource(kind, name).closed}
        return {name for name in names - closed if not (kind is EDS and self.is_kept(name))}

    def check_order(self, push: Push) -> None:
        new = [each for each in push.resources if self.server[push.kind].lacks(each)]
        had = [each for each in new if self.server[push.kind].sent.get(each.name)]
        if push.kind is RDS:
            self.check_routes([each for each in had if each.live])
        elif push.kind in (CDS, EDS):
            routes = self.server[RDS]
            for resource in had:
                route = routes.sent.get(root_of(resource.name))
                open_still = route is not None and route.live and route.name in routes.named
                assert not open_still or self.world.resource(RDS, route.name).live, "clusters before what closes"
        if push.kind is EDS:
            late = {root_of(name) for name in self.unsent(CDS)}
            for resource in had:
                if resource.name not in self.server[EDS].again:
                    assert root_of(resource.name) not in late, "endpoints before their cluster"
                    assert resource.live or not self.world.root(resource.name).live, "endpoints that are still used"

    def check_routes(self, opened: list[Resource]) -> None:
        waiting = self.unsent(CDS) | self.unsent(EDS)
        for kind in (CDS, EDS):
            waiting |= self.server[kind].changed.keys() if self.server[kind].unanswered else set()
        for resource in opened:
            if resource.name not in self.server[RDS].again:
                roots = {root_of(name) for name in waiting}
                assert resource.name not in roots, "a route before its clusters"
                assert not (waiting and self.server[CDS].all), "the route of all before the clusters of one"

    # The world

    @rule(data=st.data())
    def change(self, data: st.DataObject) -> None:
        changed: dict[str, None] = {}
        for root in data.draw(st.lists(st.sampled_from(ROOTS), min_size=1, max_size=2), label="roots"):
            values = {data.draw(st.sampled_from(PARTS), label="part"): data.draw(st.integers(0, 2), label="value")}
            for flag in data.draw(st.sets(st.sampled_from(("live", "moved")), max_size=1), label="flags"):
                values[flag] = not getattr(self.world.root(root), flag)
            values["slots"] = data.draw(st.integers(1, 2), label="slots")
            changed |= dict.fromkeys(self.world.set(root, **values))
        self.session.change(changed)

    @rule(root=st.sampled_from(ROOTS))
    def delete(self, root: str) -> None:
        if self.world.roots.pop(root, None):
            self.session.change((root,))

    # In the end

    def teardown(self) -> None:
        if not self.streams:
            return
        self.come_to_rest()
        for root in ROOTS:
            # What was refused is another one now.
            self.world.set(root, listener=3, route=3, cluster=3, endpoints=3)
        self.session.change(ROOTS)
        self.settle()
        assert self.session.settled or self.session.refusals
        assert self.refuses or not self.session.refusals
        self.check_has_all()

    def settle(self) -> None:
        for _ in range(1_000):
            self.write()
            if self.wire.requests:
                self.receive()
            elif self.wire.responses:
                self.read("accept")
            elif self.session.holds:
                self.write(hold=False)
            elif self.lingering:
                self.release()
            else:
                return
        raise AssertionError("it does not come to rest")

    def check_has_all(self, *, more: bool = False) -> None:
        """``more``: it may have what a response would remove that it refused, or that comes with the next change."""
        for kind, its in self.client.items():
            wanted = its.of(self.world) if its.asked else set()
            names = its.has.keys() | its.refused.keys()
            assert names == wanted or (more and names > wanted)
            for name in wanted - its.refused.keys():
                resource = self.world.resource(kind, name)
                kept = kind is EDS and not resource.live
                assert its.has[name] == resource.version or kept, (kind, name)


Machine.TestCase.settings = settings(
    max_examples=80,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestSession = Machine.TestCase


def test_a_slot_that_leaves_while_it_lingers_is_that_of_its_root_when_this_is_open_again() -> None:
    """Found by the machine, in some orders of its draws alone."""
    machine = Machine()
    machine.begin(warms=True, lingers=True, prepares=False, roots=set(), usual=True)
    machine.session.change({**dict.fromkeys(machine.world.set("c", moved=True, slots=2)), **dict.fromkeys("a")})
    machine.come_to_rest()
    machine.session.change(machine.world.set("c", live=False))
    machine.delete("c")
    machine.session.change(machine.world.set("c"))
    machine.come_to_rest()
