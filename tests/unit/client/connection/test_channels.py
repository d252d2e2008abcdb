"""channels: the service config that gRPC obeys."""

import json
import socket
import time
from contextlib import closing
from itertools import pairwise

import pytest

from pointsman import Client, PointsmanError
from pointsman.connection.channels import RECONNECT_SECONDS, SERVICE, channel_options, service_config
from pointsman.v1 import route_service_pb2
from pointsman_server.config.settings import Settings


def test_only_unavailable_is_retried() -> None:
    (method,) = json.loads(service_config(4))["methodConfig"]
    assert method["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE"]


def test_every_method_of_the_service_is_named() -> None:
    (method,) = json.loads(service_config(4))["methodConfig"]
    named = {entry["method"] for entry in method["name"]}
    unary = {
        m.name for m in route_service_pb2.DESCRIPTOR.services_by_name["RouteService"].methods if not m.server_streaming
    }
    assert named == unary
    assert {entry["service"] for entry in method["name"]} == {SERVICE}


def test_one_attempt_means_no_policy() -> None:
    assert "retryPolicy" not in service_config(1)


@pytest.mark.parametrize("attempts", [0, 6])
def test_attempts_that_grpc_would_not_make_are_refused(attempts: int) -> None:
    with pytest.raises(ValueError, match="1 to 5"):
        service_config(attempts)


def test_options_of_the_caller_win() -> None:
    assert (
        dict(channel_options("x:1", 4, [("grpc.max_receive_message_length", 1)]))["grpc.max_receive_message_length"]
        == 1
    )


@pytest.mark.parametrize(
    ("target", "authority"),
    [
        ("ipv4:127.0.0.1:1,127.0.0.1:2", "127.0.0.1:1"),
        ("ipv6:[::1]:1,[::1]:2", "[::1]:1"),
        ("ipv4:127.0.0.1:1", None),
        ("dns:///pointsman.internal:443", None),
        ("localhost:50051", None),
    ],
)
def test_a_list_of_addresses_is_no_host(target: str, authority: str | None) -> None:
    assert dict(channel_options(target, 4)).get("grpc.default_authority") == authority


def test_pings_are_as_rare_as_a_server_asks_by_default() -> None:
    options = dict(channel_options("x:1", 4))
    assert options["grpc.keepalive_time_ms"] > Settings.model_fields["client_ping_seconds"].default * 1000


def test_attempts_to_connect_are_never_more_than_about_a_second_apart() -> None:
    # By gRPC's default the fifth pause is over four seconds, and the longest is two minutes.
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        listener.settimeout(30)
        with Client(f"127.0.0.1:{listener.getsockname()[1]}", timeout=0.01) as client:
            with pytest.raises(PointsmanError):
                client.resolve("a/b/c/d")
            attempts = []
            for _ in range(7):
                connection, _ = listener.accept()
                attempts.append(time.monotonic())
                connection.close()
    pauses = [after - before for before, after in pairwise(attempts)]
    assert max(pauses) < 2 * RECONNECT_SECONDS
