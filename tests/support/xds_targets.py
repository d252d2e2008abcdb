"""Versions, divisions and targets, written down shortly or drawn by hypothesis."""

from collections.abc import Mapping

from hypothesis import strategies as st

from pointsman.selection import POINTS
from pointsman_server.domain.traffic import Division
from pointsman_server.domain.traffic import Target as Weight
from pointsman_server.xds import targets
from pointsman_server.xds.targets import Target, Version

NAMES = ("v1", "v2", "v3", "v4", "v5")
URLS = (
    "http://127.0.0.1:8080",
    "https://127.0.0.1",
    "https://[2001:db8::1]:8443",
    "http://payments.internal",
    "https://Payments.Internal.:8443/",
    "https://payments.internal/api",
    "grpc://payments.internal:50051",
    "http://bücher.example:80",
    "kafka://payments.internal:9092",
    "http://payments.internal/?a=b",
    "http://payments.internal:0",
)


def division_of(weights: Mapping[str, int], *fallbacks: str) -> Division:
    """Write a division down."""
    return Division(tuple(Weight(version, weight) for version, weight in weights.items()), fallbacks)


@st.composite
def versions(draw: st.DrawFn) -> list[Version]:
    """Draw the versions of a family."""
    names = draw(st.lists(st.sampled_from(NAMES), unique=True))
    return [Version(name, draw(st.sampled_from(URLS)), draw(st.booleans())) for name in names]


@st.composite
def divisions(draw: st.DrawFn) -> Division | None:
    """Draw a division, or none."""
    if draw(st.booleans()):
        return None
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True))
    cuts = sorted(draw(st.lists(st.integers(0, POINTS), min_size=len(names) - 1, max_size=len(names) - 1)))
    weights = [after - before for before, after in zip([0, *cuts], [*cuts, POINTS], strict=True)]
    fallbacks = draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=3))
    return division_of(dict(zip(names, weights, strict=True)), *fallbacks)


def family_targets() -> st.SearchStrategy[Target]:
    """Draw what a family leads to."""
    return st.builds(targets.of_family, versions(), divisions())


def any_targets() -> st.SearchStrategy[Target]:
    """Draw what a name leads to."""
    fixed = st.sampled_from([targets.UNKNOWN, targets.FORBIDDEN, targets.NOT_A_NAME])
    routes = st.builds(targets.of_route, st.builds(Version, st.just("v1"), st.sampled_from(URLS), st.booleans()))
    return fixed | routes | family_targets()
