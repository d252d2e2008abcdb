"""Endpoints."""

import pytest

from pointsman_server.xds.resources.destinations import Destination, destination_of
from pointsman_server.xds.resources.endpoints import add_endpoint, assignment
from pointsman_server.xds.views import ClientKind, View
from tests.support.xds_messages import plain


def destination(url: str) -> Destination:
    found = destination_of(ClientKind.ENVOY, url)
    assert isinstance(found, Destination)
    return found


@pytest.mark.parametrize("kind", ClientKind)
def test_an_assignment_has_one_endpoint_or_none(kind: ClientKind) -> None:
    built = assignment(View(kind), "a", destination("https://payments.internal:1"))

    (locality,) = built.endpoints
    (endpoint,) = locality.lb_endpoints
    assert endpoint.endpoint.hostname == ("payments.internal:1" if kind is ClientKind.ENVOY else "")
    assert plain(assignment(View(kind), "a", None)) == {"cluster_name": "a"}


def test_further_endpoints_are_of_localities_of_their_own() -> None:
    built = assignment(View(ClientKind.ENVOY), "a", destination("http://127.0.0.1"))
    locality = add_endpoint(built, View(ClientKind.ENVOY), destination("http://127.0.0.2"))

    assert list(built.endpoints)[1] == locality
    assert locality.load_balancing_weight.value == locality.lb_endpoints[0].load_balancing_weight.value == 1
