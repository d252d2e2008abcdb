"""What clients were told stays while there is no server, and none withdraws anything when it returns."""

import grpc
import pytest

from tests.support.xds_clients.clients import XdsClient
from tests.support.xds_clients.fleet import OK, Fleet, check_none_failed

pytestmark = [pytest.mark.go, pytest.mark.node]

NOT_FOUND = grpc.StatusCode.NOT_FOUND
RATE = 100.0


def test_restarts_and_a_time_without_servers_fail_no_call(shared: Fleet, clients: list[XdsClient], family: str) -> None:
    shared.api.create(f"{family}/v1", shared.urls["b1"])
    shared.api.create(f"{family}/v2", shared.urls["b2"], active=False)
    for each in clients:
        each.call("family", family, rate=RATE)
        each.call("closed", f"{family}/v2")
    for each in clients:
        each.probe.wait("family", OK, "b1")
        each.probe.wait("closed", NOT_FOUND)

    shared.server.stop()
    for each in clients:
        each.probe.wait_for_calls("family", 100)
    shared.server.start()
    shared.api.activate(f"{family}/v2", exclusive=True)

    for each in clients:
        each.probe.wait("family", OK, "b2")
        each.probe.wait("closed", OK, "b2")
    check_none_failed(clients, "family")
