"""Which layer answers: what a figure is worth depends on it, so it is asked of the answers and of the server."""

import random
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field

import grpc
from prometheus_client.parser import text_string_to_metric_families

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_service_pb2_grpc import RouteServiceStub
from tests.bench import requests
from tests.bench.children import Child

SAMPLE = 10
# A few calls may go elsewhere: those of a sampler, or of a cache that is refused for a moment.
LEAST_SHARE = 0.99


class WrongLayer(Exception):
    """Another layer than the one claimed answered: there is no figure."""


@dataclass
class LayerCheck:
    """Watches one run: ``begin``, the load, ``end``. Raises WrongLayer."""

    server: Child
    source: str
    exact: bool = False
    _before: Mapping[str, float] = field(default_factory=dict)

    def begin(self) -> None:
        """Sample answers, and remember what the server has counted."""
        self._sample()
        self._before = answered(self.server)

    def end(self) -> None:
        """Compare with what the server has counted, and sample again."""
        after = answered(self.server)
        by_source = {source: count - self._before.get(source, 0) for source, count in after.items()}
        share = by_source.get(self.source, 0) / max(1, sum(by_source.values()))
        if share < LEAST_SHARE:
            raise WrongLayer(f"{self.source} answered only {share:.1%} of the calls: {by_source}")
        self._sample()

    def _sample(self) -> None:
        with grpc.insecure_channel(self.server.address) as channel:
            stub = RouteServiceStub(channel)
            for request in random.sample(requests.resolves(exact=self.exact), SAMPLE):
                source = pb.Provenance.Source.Name(stub.Resolve(request, timeout=5).provenance.source)
                if source != f"SOURCE_{self.source}":
                    raise WrongLayer(f"{source} answered, not {self.source}")


def answered(server: Child) -> dict[str, float]:
    """Count the answers that a server has given, by the layer that they came from."""
    with urllib.request.urlopen(server.metrics, timeout=5) as response:
        text = response.read().decode()
    return {
        sample.labels["source"]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "pointsman_resolve_seconds_count"
    }
