"""What begins under load is NOT_FOUND, and then OK, also where the host of its URL is a name that is to be resolved."""

from collections.abc import Collection

import grpc
import pytest

from pointsman.xds.options import Program
from tests.support.xds_clients.fleet import OK, Fleet

pytestmark = [pytest.mark.go]

NOT_FOUND = grpc.StatusCode.NOT_FOUND
NAMES = 12
ROUNDS = 6
RATE = 150.0


@pytest.fixture(scope="module")
def kinds() -> Collection[Program]:
    """Go alone: of the clients, it takes routes before the hosts that they lead to."""
    return (Program.GO,)


def test_what_begins_under_load_is_found_and_reached_and_nothing_else(shared: Fleet) -> None:
    probe = shared.clients[Program.GO].probe
    url = shared.urls["b1"].replace("127.0.0.1", "localhost")
    for _ in range(ROUNDS):
        families = {f"n{number}": shared.family() for number in range(NAMES)}
        for name, family in families.items():
            shared.clients[Program.GO].call(name, family, rate=RATE)
        for name in families:
            probe.wait(name, NOT_FOUND)
        for family in families.values():
            shared.api.create(f"{family}/v1", url)
        for name in families:
            probe.wait(name, OK, "b1")
        statuses = {code for name in families for code, _ in probe.summary(name)}
        assert statuses == {NOT_FOUND, OK}
        probe.drop_all()
