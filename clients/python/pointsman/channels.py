"""How a channel to the server behaves: retries, balancing, sizes. The same for both clients."""

import json
from collections.abc import Sequence
from typing import Any

from pointsman.operations import MUTATIONS, READS
from pointsman.version import client_version

RETRY_BUFFER_BYTES = 4 * 1024 * 1024
ChannelOptions = Sequence[tuple[str, Any]]

SERVICE = "pointsman.v1.RouteService"
MAX_ATTEMPTS = 4
MAX_ATTEMPTS_LIMIT = 5
"""gRPC itself never makes more than this many attempts."""
# A page of 1,000 changes, each with two routes of long URLs and many labels, is far over gRPC's default of 4 MiB.
MAX_RECEIVE_BYTES = 128 * 1024 * 1024


def channel_options(max_attempts: int, extra: ChannelOptions = ()) -> list[tuple[str, Any]]:
    """Return the options of a channel; ``extra`` comes last and so wins. Raises ValueError for bad attempts."""
    ours = {
        "grpc.service_config": service_config(max_attempts),
        "grpc.enable_retries": 1,
        # What is larger is sent only once. An import is, with gRPC's default of 256 KiB.
        "grpc.per_rpc_retry_buffer_size": RETRY_BUFFER_BYTES,
        "grpc.max_receive_message_length": MAX_RECEIVE_BYTES,
        "grpc.primary_user_agent": f"pointsman-python/{client_version()}",
    }
    return list({**ours, **dict(extra)}.items())


def service_config(max_attempts: int) -> str:
    """Return the gRPC service config: who is retried, how often, and how calls spread over the servers of a name.

    UNAVAILABLE is the one code that is retried, mutations included: their ``request_id`` makes that safe. Each
    method is named, so that one added later is retried only once somebody has thought about it. A server that
    sends ``grpc-retry-pushback-ms`` decides the pause; the deadline of the call bounds all attempts together.
    """
    if not 1 <= max_attempts <= MAX_ATTEMPTS_LIMIT:
        raise ValueError(f"max_attempts must be 1 to {MAX_ATTEMPTS_LIMIT}, not {max_attempts}")
    method: dict[str, Any] = {"name": [{"service": SERVICE, "method": name} for name in (*READS, *MUTATIONS)]}
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
