"""How a channel to the server behaves: retries, balancing, sizes. The same for both clients."""

import json
from collections.abc import Sequence
from typing import Any

from pointsman.rpc.operations import MUTATIONS, READS, WATCHERS
from pointsman.version import client_version

ChannelOptions = Sequence[tuple[str, Any]]

SERVICE = "pointsman.v1.RouteService"
MAX_ATTEMPTS = 4
MAX_ATTEMPTS_LIMIT = 5
"""gRPC itself never makes more than this many attempts."""
# A page of 1,000 changes, each with two routes of long URLs and many labels, is far over gRPC's default of 4 MiB.
MAX_RECEIVE_BYTES = 128 * 1024 * 1024
RETRY_BUFFER_BYTES = 4 * 1024 * 1024
RECONNECT_SECONDS = 1.0
"""The longest pause between two attempts to connect; gRPC's default grows to 2 minutes."""
CONNECT_SECONDS = 5.0
"""How long one attempt to connect may take, TLS included; gRPC's default is 20."""
KEEPALIVE_SECONDS = 11.0
"""A ping after so much silence. By default servers disconnect clients that ping more often than every 10 seconds."""
KEEPALIVE_TIMEOUT_SECONDS = 5.0
"""A connection whose ping is not answered for so long is closed, and its calls are UNAVAILABLE."""


def channel_options(target: str, max_attempts: int, extra: ChannelOptions = ()) -> list[tuple[str, Any]]:
    """Return the options of a channel to ``target``; ``extra`` wins. Raises ValueError for bad attempts."""
    ours = {
        **_authority(target),
        "grpc.service_config": service_config(max_attempts),
        "grpc.enable_retries": 1,
        # What is larger is sent only once. An import is, with gRPC's default of 256 KiB.
        "grpc.per_rpc_retry_buffer_size": RETRY_BUFFER_BYTES,
        "grpc.max_receive_message_length": MAX_RECEIVE_BYTES,
        "grpc.initial_reconnect_backoff_ms": 100,
        "grpc.max_reconnect_backoff_ms": _ms(RECONNECT_SECONDS),
        "grpc.min_reconnect_backoff_ms": _ms(CONNECT_SECONDS),  # by its name a pause, by its effect a timeout
        "grpc.keepalive_time_ms": _ms(KEEPALIVE_SECONDS),
        "grpc.keepalive_timeout_ms": _ms(KEEPALIVE_TIMEOUT_SECONDS),
        "grpc.http2.ping_timeout_ms": _ms(KEEPALIVE_TIMEOUT_SECONDS),
        # A connection that is dead is found before the next call needs it.
        "grpc.keepalive_permit_without_calls": 1,
        "grpc.http2.max_pings_without_data": 0,
        "grpc.primary_user_agent": f"pointsman-python/{client_version()}",
    }
    return list({**ours, **dict(extra)}.items())


def _authority(target: str) -> dict[str, str]:
    """Name a host for a list of addresses, as in ``ipv4:127.0.0.1:1,127.0.0.1:2``: gRPC would send the list."""
    scheme, _, addresses = target.partition(":")
    first, comma, _ = addresses.partition(",")
    return {"grpc.default_authority": first} if comma and scheme in {"ipv4", "ipv6"} else {}


def _ms(seconds: float) -> int:
    return int(seconds * 1000)


def service_config(max_attempts: int) -> str:
    """Return the gRPC service config: who is retried, how often, and how calls spread over the servers of a name.

    UNAVAILABLE is the one code that is retried, mutations included: their ``request_id`` makes that safe. Each
    method is named, so that one added later is retried only once somebody has thought about it. A server that
    sends ``grpc-retry-pushback-ms`` decides the pause; the deadline of the call bounds all attempts together.
    """
    if not 1 <= max_attempts <= MAX_ATTEMPTS_LIMIT:
        raise ValueError(f"max_attempts must be 1 to {MAX_ATTEMPTS_LIMIT}, not {max_attempts}")
    names = (*READS, *MUTATIONS, *WATCHERS)
    method: dict[str, Any] = {"name": [{"service": SERVICE, "method": name} for name in names]}
    if max_attempts > 1:
        method["retryPolicy"] = {
            "maxAttempts": max_attempts,
            "initialBackoff": "0.1s",
            "maxBackoff": "1s",
            "backoffMultiplier": 2,
            "retryableStatusCodes": ["UNAVAILABLE"],
        }
    config = {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [method],
        # When most calls fail, retries stop: they would only add to the load of a server in trouble.
        "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.1},
    }
    return json.dumps(config)
