"""Which layer answers: what a figure is worth depends on it, so the server that is loaded is asked what it counted."""

import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client.parser import text_string_to_metric_families

from tests.bench.children import Child
from tests.bench.contests import Refused

# A few calls may go elsewhere: those of a sampler, or of a cache that is refused for a moment.
LEAST_SHARE = 0.99


@contextmanager
def answering(server: Child, source: str) -> Iterator[None]:
    """Watch what a server does in the block. Raises Refused unless that layer gave nearly all answers."""
    before = answered(server)
    yield
    by_source = {layer: count - before.get(layer, 0) for layer, count in answered(server).items()}
    part = share(by_source, source)
    if part < LEAST_SHARE:
        raise Refused(f"{source} answered only {part:.1%} of the calls: {by_source}")


def share(by_source: dict[str, float], source: str) -> float:
    """Say which part of the answers came from a layer; 0 when there were none."""
    return by_source.get(source, 0) / max(1, sum(by_source.values()))


def answered(server: Child) -> dict[str, float]:
    """Count the answers that a server has given, by the layer that they came from."""
    with urllib.request.urlopen(server.metrics, timeout=5) as response:
        text = response.read().decode()
    answers: Counter[str] = Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name in ("pointsman_resolve_seconds_count", "pointsman_select_seconds_count"):
                answers[sample.labels["source"]] += sample.value  # type: ignore[assignment]
    return dict(answers)
