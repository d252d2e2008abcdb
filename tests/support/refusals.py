"""Errors as a caller sees them on the wire."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2


@dataclass(frozen=True)
class Refusal:
    """A status with its details, read back from the trailing metadata."""

    code: grpc.StatusCode
    message: str
    reason: str
    domain: str
    metadata: Mapping[str, str]
    fields: Mapping[str, str]
    retry_seconds: float | None
    trailers: Mapping[str, str | bytes]


def refused(call: Callable[..., object], *arguments: Any, **options: Any) -> Refusal:
    """Make a call that must fail, and read why."""
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, **options)
    return read(caught.value)


def read(error: Any) -> Refusal:
    """Read an RpcError."""
    trailers = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailers.get("grpc-status-details-bin", b""))
    return read_status(status, error.code(), error.details(), trailers)


def read_status(
    status: status_pb2.Status, code: grpc.StatusCode, message: str, trailers: Mapping[str, str | bytes]
) -> Refusal:
    """Read a status message."""
    info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    has_retry = False
    for detail in status.details:
        detail.Unpack(info)
        detail.Unpack(bad)
        has_retry = detail.Unpack(retry) or has_retry
    return Refusal(
        code=code,
        message=message,
        reason=info.reason,
        domain=info.domain,
        metadata=dict(info.metadata),
        fields={violation.field: violation.description for violation in bad.field_violations},
        retry_seconds=retry.retry_delay.ToNanoseconds() / 1e9 if has_retry else None,
        trailers=trailers,
    )
