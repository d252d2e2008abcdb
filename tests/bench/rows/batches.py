"""BatchResolve of cached keys, beside a transaction of etcd that reads as many."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from tests.bench import requests, tls
from tests.bench.contests import Contest, Row, at_least
from tests.bench.rig import Rig
from tests.bench.rows.beside_etcd import Member
from tests.bench.rows.calls import Call, by_h2load, over_tls, warm

KEYS = 100


@contextmanager
def part(rig: Rig) -> Iterator[Contest]:
    """Measure the Envoy door, and grpcio."""
    # In half a second a busy machine may answer none of 32 batches.
    rig = replace(rig, seconds=max(rig.seconds, 1.0))
    with ExitStack() as stack:
        request = requests.write(rig.work / "batch.bin", [requests.batch(KEYS)])
        call = Call("BatchResolve", request, rig.guard.headers, "LOCAL", KEYS)
        contestants = {}
        for transport in ("envoy", "grpcio"):
            server = stack.enter_context(rig.server(transport))
            warm(server, call)
            contestants[transport] = by_h2load(rig, server, call)
        pair = tls.write(rig.work)
        secure = stack.enter_context(rig.server("envoy", chosen=pair.settings))
        contestants["envoy, TLS"] = over_tls(rig, secure, call, pair.ca)
        rows = [Row(f"batch.{name.replace(', ', '.')}", name, name, None, unit="keys/s") for name in contestants]
        if rig.has_etcd:
            member = Member.start(stack, rig)
            contestants["etcd"] = member.txn(rig, KEYS)
            contestants["etcd, TLS"] = member.txn(rig, KEYS, tls=True)
            rows = [
                Row("batch.tls.etcd", "envoy, TLS", "envoy, TLS", at_least(1.0), "etcd, TLS", unit="keys/s"),
                Row("batch.envoy.etcd", "envoy", "envoy", at_least(1.0), "etcd", unit="keys/s"),
                Row("batch.grpcio.etcd", "grpcio", "grpcio", None, "etcd", unit="keys/s"),
            ]
        yield Contest(f"BatchResolve of {KEYS} keys in the local cache, beside a Txn of as many", contestants, rows)
