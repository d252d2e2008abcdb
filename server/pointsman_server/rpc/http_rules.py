"""The methods of HTTP by which the paths of the RPCs are called: the ``google.api.http`` options of the protos."""

import re
from collections.abc import Iterator
from functools import cache

from google.api import annotations_pb2, http_pb2  # type: ignore[import-untyped]

from pointsman.v1 import route_service_pb2
from pointsman_server.rpc import SERVICE

VARIABLE = re.compile(r"\\{[^}]+\\}")


def methods_of(path: str) -> list[str]:
    """Return the methods that ``path`` takes, sorted; none where there is no such path."""
    return sorted({method for pattern, method in _patterns() if pattern.fullmatch(path)})


@cache
def _patterns() -> list[tuple[re.Pattern[str], str]]:
    service = route_service_pb2.DESCRIPTOR.services_by_name[SERVICE.rpartition(".")[2]]
    options = [method.GetOptions().Extensions[annotations_pb2.http] for method in service.methods]
    rules = [rule for option in options for rule in (option, *option.additional_bindings)]
    return [(_pattern(path), method) for rule in rules for method, path in _bindings(rule)]


def _bindings(rule: http_pb2.HttpRule) -> Iterator[tuple[str, str]]:
    kind = rule.WhichOneof("pattern")
    if kind == "custom":
        yield rule.custom.kind, rule.custom.path
    elif kind:
        yield kind.upper(), getattr(rule, kind)


def _pattern(template: str) -> re.Pattern[str]:
    """Match each variable with one segment; a verb such as ``:activate`` is no part of it."""
    return re.compile(VARIABLE.sub(lambda _: "[^/:]+", re.escape(template)))
