"""Two clients that have everything they want."""

import pytest

from pointsman_server.xds.protocol.types import ResourceType
from tests.support.xds_world import ALL, CDS, EDS, LDS, RDS, Client, World


@pytest.fixture
def client() -> Client:
    """A client that has everything of ``a``."""
    client = Client(World())
    client.world.set("a")
    for kind in ResourceType:
        client.settle(client.ask(kind, "a"))
    assert client.session.settled
    return client


@pytest.fixture
def envoy() -> Client:
    """A client that asks for all Listeners and Clusters."""
    envoy = Client(World(), warms=True)
    envoy.world.set("a")
    envoy.world.set("b")
    for kind, names in {CDS: (), EDS: ("a", "b"), LDS: (), RDS: (ALL,)}.items():
        envoy.settle(envoy.ask(kind, *names))
    assert envoy.session.settled
    return envoy
