"""How a call of the fake server ends when it does not end well."""

from dataclasses import dataclass, field
from typing import Any, NoReturn

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

REQUEST_ID = "4bf92f35"


@dataclass(frozen=True)
class Failure:
    """How one call ends."""

    code: grpc.StatusCode
    message: str = "made to fail"
    reason: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    details: tuple[Message, ...] = ()
    trailers: tuple[tuple[str, str | bytes], ...] = ()
    domain: str = "pointsman.v1"

    def status(self) -> status_pb2.Status:
        details = list(self.details)
        if self.reason:
            info = error_details_pb2.ErrorInfo(reason=self.reason, domain=self.domain, metadata=self.metadata)
            details.insert(0, info)
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        for detail in details:
            packed = AnyMessage()
            packed.Pack(detail)
            status.details.append(packed)
        return status


class Refused(Exception):
    """A step of a Commit would end so."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Trial:
    """The context of a step of a Commit."""


def abort(context: Any, failure: Failure) -> NoReturn:
    if isinstance(context, Trial):
        raise Refused(failure)
    details = failure.status().SerializeToString()
    trailers = (("grpc-status-details-bin", details), ("x-request-id", REQUEST_ID))
    context.set_trailing_metadata((*trailers, *failure.trailers))
    context.abort(failure.code, failure.message)
    raise AssertionError("abort does not return")


def parts_of(key: Any) -> tuple[str, ...]:
    return key.tenant, key.service, key.env, key.version


def text_of(key: Any) -> str:
    return "/".join(filter(None, parts_of(key)))


def family_of(message: Any) -> tuple[str, ...]:
    return message.tenant, message.service, message.env
