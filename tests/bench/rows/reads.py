"""Resolve from the local cache: beside the floor of its transport, and beside etcd."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tests.bench import requests, tls
from tests.bench.contests import Contest, Row, at_least, at_most
from tests.bench.rig import Rig
from tests.bench.rows.beside_etcd import Member
from tests.bench.rows.calls import Call, by_h2load, over_tls, warm

# The share of its floor that a transport keeps with everything on. grpcio itself costs ten times what we add.
FLOORS = {"envoy": 0.75, "grpcio": 0.9}
SLOWEST = 1.5
# The share of the rate of Resolve that Select has.
SELECT = 0.9
GRPC_GO = "beside an empty handler of grpc-go"


@contextmanager
def part(rig: Rig, transport: str) -> Iterator[Contest]:
    """Measure one transport."""
    with ExitStack() as stack:
        frame = requests.write_frame(rig.work / "resolve.bin")
        guarded = Call("Resolve", frame, rig.guard.headers, "LOCAL")
        anonymous = Call("Resolve", frame, source="LOCAL")
        floor = stack.enter_context(rig.noop(transport))
        ours = stack.enter_context(rig.server(transport))
        bare = stack.enter_context(rig.server(transport, guarded=False))
        select = Call("Select", requests.write(rig.work / "select.bin", [requests.select()]), guarded.headers, "LOCAL")
        warm(ours, guarded)
        warm(ours, select)
        warm(bare, anonymous)
        contestants = {
            # The same call, token and all: what a transport takes for headers is its own.
            "floor": by_h2load(rig, floor, Call("Resolve", frame, rig.guard.headers)),
            "token": by_h2load(rig, ours, guarded),
            "anonymous": by_h2load(rig, bare, anonymous),
            "select": by_h2load(rig, ours, select),
        }
        rows = [
            Row(
                f"local.{transport}.floor",
                "token and permissions checked",
                "token",
                at_least(FLOORS[transport]),
                "floor",
            ),
            Row(f"local.{transport}.floor-cpu", "the same by processor time", "token", None, "floor", "cpu", "µs"),
            Row(f"local.{transport}.p99", "the slowest of a hundred", "token", at_most(SLOWEST), "floor", "p99", "ms"),
            Row(f"local.{transport}.open", "anybody may call", "anonymous", None),
            *_select(f"local.{transport}", "token"),
        ]
        if rig.has_etcd:
            member = Member.start(stack, rig)
            contestants |= {
                "etcd serializable": member.range(rig, serializable=True),
                "etcd linearizable": member.range(rig, serializable=False),
            }
            rows += _beside_etcd(transport)
        if rig.has_grpc_go and transport == "envoy":
            go = stack.enter_context(rig.grpc_go())
            contestants["grpc-go"] = by_h2load(rig, go, Call("Resolve", frame, rig.guard.headers))
            rows.append(Row("local.envoy.grpc-go", GRPC_GO, "token", None, "grpc-go"))
        yield Contest(f"Resolve from the local cache, {transport}", contestants, rows)


def _select(name: str, resolve: str) -> list[Row]:
    """Compare a Select, of a caller of a family with two versions, with a Resolve."""
    what = "Select beside Resolve"
    return [
        Row(f"{name}.select", what, "select", at_least(SELECT), resolve),
        Row(f"{name}.select-cpu", "the same by processor time", "select", None, resolve, "cpu", "µs"),
    ]


def _beside_etcd(transport: str) -> list[Row]:
    what = "token and permissions checked"
    # On grpcio nothing can be as fast: its floor alone is a fraction of etcd.
    targets = (at_least(1.2), None) if transport == "envoy" else (None, None)
    return [
        Row(f"local.{transport}.etcd-serializable", what, "token", targets[0], "etcd serializable"),
        Row(f"local.{transport}.etcd-linearizable", what, "token", targets[1], "etcd linearizable"),
        # Others on the machine move this less than calls per second.
        Row(
            f"local.{transport}.etcd-cpu", "the same by processor time", "token", None, "etcd serializable", "cpu", "µs"
        ),
    ]


@contextmanager
def tls_part(rig: Rig) -> Iterator[Contest]:
    """Measure what users get: the Envoy door with TLS, everything on."""
    with ExitStack() as stack:
        pair = tls.write(rig.work)
        frame = requests.write_frame(rig.work / "resolve-tls.bin")
        call = Call("Resolve", frame, rig.guard.headers, "LOCAL")
        select = Call("Select", requests.write(rig.work / "select.bin", [requests.select()]), call.headers, "LOCAL")
        floor = stack.enter_context(rig.noop("envoy", pair.settings))
        ours = stack.enter_context(rig.server("envoy", chosen=pair.settings))
        grpcio = stack.enter_context(rig.server("grpcio", chosen=pair.settings))
        contestants = {
            "floor": over_tls(rig, floor, Call("Resolve", frame, rig.guard.headers), pair.ca),
            "token": over_tls(rig, ours, call, pair.ca),
            "grpcio, token": over_tls(rig, grpcio, call, pair.ca),
            "select": over_tls(rig, ours, select, pair.ca),
        }
        what = "token and permissions checked"
        rows = [
            Row("tls.envoy.floor", what, "token", at_least(FLOORS["envoy"]), "floor"),
            Row("tls.envoy.floor-cpu", "the same by processor time", "token", None, "floor", "cpu", "µs"),
            Row("tls.envoy.p99", "the slowest of a hundred", "token", at_most(SLOWEST), "floor", "p99", "ms"),
        ]
        rows += _select("tls.envoy", "token")
        rows.append(Row("tls.envoy.grpcio", "beside the same server on grpcio", "token", None, "grpcio, token"))
        if rig.has_grpc_go:
            bare = Call("Resolve", frame, rig.guard.headers)
            contestants["grpc-go"] = over_tls(rig, stack.enter_context(rig.grpc_go(pair)), bare, pair.ca)
            rows.append(Row("tls.envoy.grpc-go", GRPC_GO, "token", None, "grpc-go"))
        if rig.has_etcd:
            contestants["etcd serializable"] = Member.start(stack, rig).range(rig, serializable=True, tls=True)
            rows.append(Row("tls.envoy.etcd-serializable", what, "token", at_least(2.0), "etcd serializable"))
            rows.append(
                Row("tls.envoy.etcd-cpu", "the same by processor time", "token", None, "etcd serializable", "cpu", "µs")
            )
        yield Contest("Resolve from the local cache over TLS, envoy", contestants, rows)
