"""Two workers beside one: what a second one adds, on a machine where the generator takes its share of the same cores.

One worker has a core to itself, and the generator the other. Two workers have a core each, with the generator between
them, so calls per second would measure the generator. What is compared is what each worker makes of the processor time
that it got: calls per second of the servers' processor time, times the workers. That shows whether workers hinder each
other (caches of the processor, the kernel's sockets), and not what cores that are not there would do.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from tests.bench import requests
from tests.bench.children import Child
from tests.bench.contests import Contest, Row, Sample, at_least
from tests.bench.generators import H2load
from tests.bench.rig import Rig
from tests.bench.rows.calls import Call, warm
from tests.support.processes import free_port

# Enough that the kernel, which spreads connections at random, gives each worker about as many; and with so many calls
# in each that a worker and the generator do not take turns on a core for every single one.
CONNECTIONS = 32
IN_FLIGHT = 128


@contextmanager
def part(rig: Rig) -> Iterator[Contest]:
    """Measure the Envoy door; nothing is measured where h2load or a second core is missing."""
    frame = requests.write_frame(rig.work / "workers.bin")
    call = Call("Resolve", frame, rig.guard.headers)
    two = {"POINTSMAN_WORKERS": "2", "POINTSMAN_PIN_WORKERS": "true", "POINTSMAN_LISTEN": f"127.0.0.1:{free_port()}"}
    with rig.server("envoy") as one_worker, rig.server("envoy", pinned=False, chosen=two) as two_workers:
        for server in (one_worker, two_workers):
            warm(server, call)
        yield Contest(
            "Workers, envoy",
            {
                "one": _capacity(rig, one_worker, call, 1),
                "two": _capacity(replace(rig, load_core=None), two_workers, call, 2),
            },
            [
                Row(
                    "workers.two",
                    "two, calls/s that they make with a core each",
                    "two",
                    at_least(1.7),
                    "one",
                    "capacity",
                )
            ],
        )


def _capacity(rig: Rig, server: Child, call: Call, workers: int) -> Callable[[], Sample]:
    assert rig.h2load
    h2load = H2load(rig.h2load, call.requests, rig.work / "h2load.log", call.headers, CONNECTIONS, IN_FLIGHT)

    def run() -> Sample:
        sample = rig.measure(server.process.pid, lambda: h2load.run(server.address, call.method, rig.seconds))
        return {**sample, "capacity": workers * 1e6 / sample["cpu"]}

    return run
