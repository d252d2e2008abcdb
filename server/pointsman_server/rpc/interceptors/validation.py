"""Validates requests by the rules in the protos, naming every field that breaks one."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import protovalidate
from google.protobuf.message import DecodeError, Message

from pointsman.rules import KEY_PART, KEY_PART_RULE
from pointsman.v1 import route_service_pb2 as pb
from pointsman_server.domain.errors import FieldViolation, InvalidField, MalformedRequest
from pointsman_server.rpc.call import Context
from pointsman_server.rpc.interceptors.plain_requests import is_plain_commit, is_plain_import, violations_of_commit
from pointsman_server.rpc.interceptors.stage import CallHandler, Method, RequestCheck, Stage, check_requests
from pointsman_server.runtime.offload import in_thread_if_large

OWN_PACKAGE = "pointsman."


def validate() -> Stage:
    """Refuse requests that break the rules in the protos."""
    validator = protovalidate.Validator()

    def check(request: Any, _context: Context) -> None:
        _refuse_invalid(_violations, validator, request)

    async def check_import(request: Any, _context: Context) -> None:
        size = 0 if isinstance(request, Malformed) else len(request.routes)
        await in_thread_if_large(lambda: _refuse_invalid(_violations_of_import, validator, request), size)

    async def check_commit(request: Any, _context: Context) -> None:
        size = 0 if isinstance(request, Malformed) else len(request.mutations)
        await in_thread_if_large(lambda: _refuse_invalid(_violations_of_commit, validator, request), size)

    def check_foreign(request: Any, _context: Context) -> None:
        if isinstance(request, Malformed):
            raise MalformedRequest

    large: Mapping[str, RequestCheck] = {"Import": check_import, "Commit": check_commit}

    def stage(method: Method, proceed: CallHandler) -> CallHandler:
        # The protos of others have no rules; and messages of a pool of their own cannot be looked up by the validator.
        own = method.service.startswith(OWN_PACKAGE)
        return check_requests(method, proceed, large.get(method.name, check) if own else check_foreign)

    return stage


def _refuse_invalid(
    find: Callable[[protovalidate.Validator, Any], Sequence[FieldViolation]],
    validator: protovalidate.Validator,
    request: Any,
) -> None:
    if isinstance(request, Malformed):
        raise MalformedRequest
    try:
        violations = find(validator, request)
    except ValueError as error:
        # CEL rules parse the bytes again with a stricter parser: it rejects field 0 in an unknown group.
        raise MalformedRequest from error
    if violations:
        raise InvalidField(violations)


def _violations(validator: protovalidate.Validator, request: Message) -> Sequence[FieldViolation]:
    return [_violation(violation.proto) for violation in validator.collect_violations(request)]


def _violations_of_import(validator: protovalidate.Validator, request: pb.ImportRequest) -> Sequence[FieldViolation]:
    return () if is_plain_import(validator, request) else _violations(validator, request)


def _violations_of_commit(validator: protovalidate.Validator, request: pb.CommitRequest) -> Sequence[FieldViolation]:
    if is_plain_commit(validator, request):
        return ()
    return [*_violations(validator, request), *violations_of_commit(request)]


class Malformed:
    """Stands for a request that cannot be parsed, until ``validate`` refuses it."""


def tolerant(deserialize: Callable[[bytes], Message]) -> Callable[[bytes], Message | Malformed]:
    """Return Malformed for what cannot be parsed. The transports would answer with the parser's text."""

    def attempt(data: bytes) -> Message | Malformed:
        try:
            return deserialize(data)
        except (DecodeError, ValueError):
            return Malformed()

    return attempt


# The patterns of the protos in words.
_PATTERNS = {
    f"^{KEY_PART.pattern}$": KEY_PART_RULE,
    "^[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?$": (
        "must have names of 1 to 63 characters of A-Z a-z 0-9 . _ / -, the first and the last alphanumeric"
    ),
    "^[A-Za-z0-9._:-]{0,64}$": "must be at most 64 characters of A-Z a-z 0-9 . _ : -",
    "^[^\\x00-\\x1f\\x7f]*$": "must have no control characters",
    "^[^\\x00]*$": "must have no NUL characters",
}


def _violation(violation: Any) -> FieldViolation:
    path = "".join(_element(element) for element in violation.field.elements) if violation.field else ""
    message = violation.message
    _, quoted, pattern = message.partition("does not match regex pattern ")
    return FieldViolation(path.lstrip("."), _PATTERNS.get(pattern.strip("`"), message) if quoted else message)


def _element(element: Any) -> str:
    subscript = element.subscript
    if subscript is None:
        return f".{element.field_name}"
    return f".{element.field_name}[{subscript.value}]" if subscript.field == "index" else f".{element.field_name}[key]"
