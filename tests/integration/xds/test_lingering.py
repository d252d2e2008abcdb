"""What ends, ends with a clear status: no call that was let through just before is without a place to go."""

from collections.abc import Iterator

import grpc
import pytest

from pointsman_server.xds.stream import Stream
from tests.support.xds_clients.clients import XdsClient
from tests.support.xds_clients.fleet import OK, Fleet

pytestmark = [pytest.mark.go, pytest.mark.node]

# A second is not enough for a client that hardly gets the processor.
LINGER_SECONDS = 60.0
NOT_FOUND = grpc.StatusCode.NOT_FOUND
RATE = 300.0
TOGGLES = 12


@pytest.fixture(scope="module", autouse=True)
def patient() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(Stream.__init__.__kwdefaults__ or {}, "linger_seconds", LINGER_SECONDS)
        yield


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_what_ends_under_load_is_not_found_and_nothing_else(
    shared: Fleet, clients: list[XdsClient], family: str, host: str
) -> None:
    key = f"{family}/v1"
    shared.api.create(key, shared.urls["b1"].replace("127.0.0.1", host))
    for each in clients:
        each.call("ends", family, rate=RATE)
        each.probe.wait("ends", OK, "b1")
    for _ in range(TOGGLES):
        shared.api.deactivate(key)
        for each in clients:
            each.probe.wait("ends", NOT_FOUND)
        shared.api.activate(key)
        for each in clients:
            each.probe.wait("ends", OK, "b1")

    statuses = {each.kind: {code for code, _ in each.probe.summary("ends")} for each in clients}
    assert statuses == {each.kind: {OK, NOT_FOUND} for each in clients}
