"""What clients were told stays while there is no server, and while a server has nothing to answer from."""

from contextlib import suppress
from urllib.parse import urlsplit

import grpc
import pytest

from pointsman.errors import PointsmanError
from tests.support.tcp_proxy import TcpProxy
from tests.support.waiting import eventually
from tests.support.xds_clients.clients import XdsClient
from tests.support.xds_clients.fleet import OK, Fleet, check_none_failed, go_on

pytestmark = [pytest.mark.go, pytest.mark.node]

NOT_FOUND = grpc.StatusCode.NOT_FOUND
RATE = 100
RECONNECT_SECONDS = 90.0


def test_restarts_and_times_without_servers_or_store_fail_no_call(
    shared: Fleet, clients: list[XdsClient], family: str
) -> None:
    shared.api.create(f"{family}/v1", shared.urls["b1"])
    shared.api.create(f"{family}/v2", shared.urls["b2"], active=False)
    for each in clients:
        each.call("family", family, rate=RATE)
        each.call("closed", f"{family}/v2")
    for each in clients:
        each.probe.wait("family", OK, "b1")
        each.probe.wait("closed", NOT_FOUND)
        each.probe.reset("family")

    shared.server.stop()
    go_on(clients, "family", RATE)
    database = str(shared.server.settings["database_url"])
    place = urlsplit(database).netloc.rpartition("@")[2]
    with TcpProxy(place) as proxy:
        proxy.refuse = True
        shared.server.start(database_url=database.replace(place, proxy.address))
        # By then they have connected again.
        go_on(clients, "family", 3 * RATE)
        proxy.refuse = False
        assert eventually(lambda: _activate(shared, f"{family}/v2"))
        for each in clients:
            # A client that was told nothing waits longer after each attempt.
            each.probe.wait("family", OK, "b2", patience=RECONNECT_SECONDS)
            each.probe.wait("closed", OK, "b2", patience=RECONNECT_SECONDS)
    check_none_failed(clients, "family")


def _activate(shared: Fleet, key: str) -> bool:
    with suppress(PointsmanError):
        return shared.api.activate(key, exclusive=True).route.active
    return False
