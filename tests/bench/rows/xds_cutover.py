"""Cut-overs under load in real xDS clients: calls that fail, and how long clients take to hear of a change.

For each client in turn, which with the server, the engines and the backends shares the cores of the machine; nothing
is pinned. A process calls the family without stop, at a steady rate, each call begun whatever the others take. One
version is put in the place of the other by ``Activate`` with ``exclusive``; then a route is deactivated and activated,
and names that nobody knows are called, each through a channel of its own. The clock of a change starts when the call of
the API begins, so that the commit is in the figure, and stops when the first call ends as the change demands.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from statistics import quantiles

import grpc

from pointsman import Client
from pointsman.xds.options import ControlPlane, Program
from tests.bench.children import ChildFailed
from tests.bench.contests import Contest, Refused, Row, Sample, Target, no_less_than, no_more_than
from tests.bench.rig import Rig
from tests.support.processes import free_port
from tests.support.xds_clients import programs
from tests.support.xds_clients.backends import backends
from tests.support.xds_clients.clients import KINDS, XdsClient, wait_for_door, xds_client
from tests.support.xds_clients.fleet import failed
from tests.support.xds_clients.probes import Counts

OK, NOT_FOUND = grpc.StatusCode.OK, grpc.StatusCode.NOT_FOUND
CUT_OVERS = 50
LEAST_RATE = 400
# What is asked of the client: timers are late on a machine that is busy.
RATE = 450.0
# Between two changes: long enough for what was on its way to end.
PAUSE_SECONDS = 0.1
BACKENDS = ("b1", "b2")
MOST_MS = 100.0
EVENTS = {
    "cutover": "a cut-over",
    "activation": "an activation",
    "deactivation": "a deactivation",
    "unknown": "the first call of an unknown name",
}


@contextmanager
def part(rig: Rig) -> Iterator[Contest]:
    """Measure every client on one server, with the Envoy door beside xDS. Raises ChildFailed without the clients."""
    if problem := programs.missing():
        raise ChildFailed(f"clients of xDS are not built: {problem}")
    count = 5 if rig.quick else CUT_OVERS
    xds = f"127.0.0.1:{free_port()}"
    with ExitStack() as stack:
        chosen = {"POINTSMAN_XDS_LISTEN": xds}
        server = stack.enter_context(rig.server("envoy", guarded=False, roles="api,xds", pinned=False, chosen=chosen))
        api = stack.enter_context(Client(server.address))
        running = stack.enter_context(backends())
        urls = {name: f"http://127.0.0.1:{running.open(name)}" for name in BACKENDS}
        contestants: dict[str, Callable[[], Sample]] = {
            kind: partial(_measure, kind, api, ControlPlane((xds,)), urls, count) for kind in KINDS
        }
        yield Contest(f"{count} cut-overs in clients of xDS", contestants, list(_rows(count)), rounds=1)


def _rows(count: int) -> Iterator[Row]:
    for kind in KINDS:
        yield _row(kind, "failed", f"{kind}: failed calls in {count} cut-overs", no_more_than(0), "calls")
        yield _row(kind, "rate", f"{kind}: calls meanwhile", no_less_than(LEAST_RATE), "calls/s")
        for event, what in EVENTS.items():
            yield _row(kind, f"{event}_p50", f"{kind}: {what}, p50", None, "ms")
            yield _row(kind, f"{event}_p99", f"{kind}: {what}, p99", no_more_than(MOST_MS), "ms")


def _row(kind: Program, figure: str, what: str, target: Target | None, unit: str) -> Row:
    return Row(f"xds.{kind}.{figure.replace('_', '.')}", what, kind, target, figure=figure, unit=unit)


def _measure(kind: Program, api: Client, plane: ControlPlane, urls: dict[str, str], count: int) -> Sample:
    tenant = f"bench-{kind}-{time.time_ns()}"
    # For as many https routes as the benchmark has, an Envoy takes a minute to start.
    families = (f"{tenant}/*/*",) if kind is Program.ENVOY else ()
    with xds_client(kind, plane, families=families) as client:
        try:
            wait_for_door(client)
            run = _Run(client, api, tenant, urls, count)
            figures = run.cut_over()
            delays = {"cutover": run.delays, **run.toggle(), "unknown": run.ask_for_unknown()}
        except AssertionError as error:
            raise Refused(str(error)) from error
    for event, each in delays.items():
        percentiles = quantiles(each, n=100, method="inclusive")
        figures |= {f"{event}_p50": percentiles[49], f"{event}_p99": percentiles[98]}
    return figures


class _Run:
    """One client, and the routes that it is led by. Delays are in milliseconds."""

    def __init__(self, client: XdsClient, api: Client, tenant: str, urls: dict[str, str], count: int) -> None:
        self._client = client
        self._probe = client.probe
        self._api = api
        self._count = count
        self._family = f"{tenant}/payments/prod"
        self._versions = {backend: f"{self._family}/{backend}" for backend in BACKENDS}
        self.delays: list[float] = []
        for backend, key in self._versions.items():
            api.create(key, urls[backend], active=backend == BACKENDS[0])

    def cut_over(self) -> dict[str, float]:
        """Put one version in the place of the other time and again. Raises Refused where the rate is not kept."""
        self._client.call("family", self._family, rate=RATE)
        self._probe.wait("family", OK, BACKENDS[0])
        # An Envoy may not have heard of the family before.
        self._probe.reset("family")
        before, begun = self._probe.summary("family"), time.monotonic()
        for number in range(self._count):
            backend = BACKENDS[(number + 1) % 2]
            self.delays.append(self._delay("family", self._activate(backend, exclusive=True), OK, backend))
        after, took = self._probe.summary("family"), time.monotonic() - begun
        rate = (_calls(after) - _calls(before)) / took
        if rate < LEAST_RATE:
            raise Refused(f"only {rate:.0f} calls/s were made")
        return {"failed": float(sum(failed(after).values())), "rate": rate}

    def toggle(self) -> dict[str, list[float]]:
        """Deactivate and activate a route that is called."""
        [*_, backend] = BACKENDS
        key = self._versions[backend]
        self._probe.drop("family")
        self._activate(backend, exclusive=True)()
        self._client.call("route", key, rate=RATE)
        self._probe.wait("route", OK, backend)
        found: dict[str, list[float]] = {"activation": [], "deactivation": []}
        for _ in range(self._count):
            found["deactivation"].append(self._delay("route", lambda: self._api.deactivate(key), NOT_FOUND, ""))
            found["activation"].append(self._delay("route", self._activate(backend), OK, backend))
        return found

    def ask_for_unknown(self) -> list[float]:
        """Call names that are new to the server and to the client, while another one is called without stop."""
        found = []
        for number in range(self._count):
            self._client.call("unknown", f"{self._family}/none-{number}", rate=1)
            answer = self._probe.wait("unknown", NOT_FOUND)
            found.append((answer.at - answer.began) / 1e6)
            self._probe.drop("unknown")
        return found

    def _activate(self, backend: str, *, exclusive: bool = False) -> Callable[[], object]:
        return lambda: self._api.activate(self._versions[backend], exclusive=exclusive)

    def _delay(self, name: str, change: Callable[[], object], code: grpc.StatusCode, backend: str) -> float:
        began = time.time_ns()
        change()
        first = self._probe.wait(name, code, backend, since=began)
        time.sleep(PAUSE_SECONDS)
        # On a busy machine the last of the calls that began before may have ended after the first one since.
        self._probe.wait(name, code, backend)
        return (first.at - began) / 1e6


def _calls(counts: Counts) -> int:
    return sum(counts.values())
