"""channels: the service config that gRPC obeys."""

import json

import pytest

from pointsman.channels import SERVICE, channel_options, service_config
from pointsman.v1 import route_service_pb2


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
    assert dict(channel_options(4, [("grpc.max_receive_message_length", 1)]))["grpc.max_receive_message_length"] == 1
