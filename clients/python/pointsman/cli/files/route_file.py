"""The YAML file of routes: read node by node, so that every problem names its line.

Scalars count as their text (a label ``1.10`` or ``no`` stays what was written); only ``active`` is true or false.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from pointsman.cli.files.entries import RawEntry
from pointsman.cli.files.problems import Problem
from pointsman.rules import KEY_PART, KEY_PART_RULE, LABELS_MAX_COUNT, URL_MAX_LENGTH

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_BOOL = "tag:yaml.org,2002:bool"
_NULL = "tag:yaml.org,2002:null"
# More than any file of routes has. What aliases repeat is bounded with it: a small file stays small.
_DEEPEST = 16
_MOST_NAMES = LABELS_MAX_COUNT
_LONGEST_VALUE = URL_MAX_LENGTH


@dataclass(frozen=True, slots=True)
class RouteFile:
    """What one file says: its entries as read, each problem, and the tenants it claims to hold completely, if any.

    ``traffic`` is None in a file that does not say how calls are divided.
    """

    entries: tuple[RawEntry | Problem, ...]
    tenants: tuple[str, ...] | None
    traffic: tuple[RawEntry | Problem, ...] | None = None


class _NodeError(Exception):
    """A node that is not what its place asks for."""

    def __init__(self, node: yaml.Node | yaml.Event, message: str) -> None:
        super().__init__(message)
        self.problem = Problem(_line(node), message)


def read_route_file(text: str) -> RouteFile:
    """Read ``routes: [{key, url, active, labels}]``, ``traffic: [{key, targets, fallbacks}]`` and ``tenants: [...]``.

    Each of them is optional. Never raises for bad text.
    """
    try:
        _check_events(text)
        node = yaml.compose(text, Loader=_LOADER)
        return _route_file(node) if node else _unusable(1, "the file is empty")
    except _NodeError as error:
        return RouteFile((error.problem,), None)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        return _unusable(line, f"no valid YAML: {error.problem or error.context}")
    except yaml.YAMLError as error:
        return _unusable(0, f"no valid YAML: {error}")


def _check_events(text: str) -> None:
    """Raise _NodeError for a second document, and for depth: libyaml would run out of stack and end the process."""
    depth, documents = 0, 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise _NodeError(event, "a second YAML document begins here: put all routes into one")
        elif isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _DEEPEST:
                raise _NodeError(event, "is nested deeper than routes are")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _unusable(line: int, message: str) -> RouteFile:
    return RouteFile((Problem(line, message),), None)


def _route_file(node: yaml.Node) -> RouteFile:
    fields = _mapping(node)
    for name, value in fields.items():
        if name not in {"routes", "traffic", "tenants"}:
            raise _NodeError(value, f"{name}: unknown field: the document has routes, traffic and tenants")
    if not fields:
        raise _NodeError(node, "routes: must be given, as a list of entries")
    tenants = tuple(map(_tenant, _sequence(fields["tenants"], "tenants"))) if "tenants" in fields else None
    routes = _sequence(fields["routes"], "routes") if "routes" in fields else []
    traffic = tuple(map(_raw_entry, _sequence(fields["traffic"], "traffic"))) if "traffic" in fields else None
    return RouteFile(tuple(map(_raw_entry, routes)), tenants, traffic)


def _raw_entry(node: yaml.Node) -> RawEntry | Problem:
    try:
        nodes = _mapping(node)
        values = {name: _value(name, value) for name, value in nodes.items()}
    except _NodeError as bad:
        return bad.problem
    return RawEntry(_line(node), values, {name: _line(value) for name, value in nodes.items()})


def _value(name: str, node: yaml.Node) -> object:
    if name in {"labels", "targets"} and isinstance(node, yaml.MappingNode):
        return {each: _text(each, value) for each, value in _mapping(node).items()}
    if name == "fallbacks" and isinstance(node, yaml.SequenceNode):
        return [_text(name, each) for each in node.value]
    if name == "active" and node.tag == _BOOL and isinstance(node, yaml.ScalarNode):
        # A tag in the file can call anything a boolean: then the text goes on, to be refused as any other.
        return yaml.constructor.SafeConstructor.bool_values.get(str(node.value).lower(), str(node.value))
    return _text(name, node)


def _mapping(node: yaml.Node) -> dict[str, yaml.Node]:
    if not isinstance(node, yaml.MappingNode):
        raise _NodeError(node, "must be names with values, like `key: a/b/c/d`")
    if len(node.value) > _MOST_NAMES:
        raise _NodeError(node, f"must be at most {_MOST_NAMES} names with values")
    fields: dict[str, yaml.Node] = {}
    for name, value in _pairs(node):
        if name in fields:
            raise _NodeError(value, f"{name}: is given twice")
        fields[name] = value
    return fields


def _pairs(node: yaml.MappingNode) -> Iterator[tuple[str, yaml.Node]]:
    for name, value in node.value:
        yield _text("name", name), value


def _sequence(node: yaml.Node, name: str) -> list[yaml.Node]:
    if node.tag == _NULL:
        return []
    if not isinstance(node, yaml.SequenceNode):
        raise _NodeError(node, f"{name}: must be a list")
    return list(node.value)


def _tenant(node: yaml.Node) -> str:
    tenant = _text("tenants", node)
    if not KEY_PART.fullmatch(tenant):
        raise _NodeError(node, f"tenants: {tenant!r} {KEY_PART_RULE}")
    return tenant


def _text(name: str, node: yaml.Node) -> str:
    if node.tag == _NULL:
        raise _NodeError(node, f"{name}: has no value: give one, or leave it out")
    if not isinstance(node, yaml.ScalarNode):
        raise _NodeError(node, f"{name}: must be one value")
    if len(node.value) > _LONGEST_VALUE:
        raise _NodeError(node, f"{name}: must be at most {_LONGEST_VALUE} characters")
    return str(node.value)


def _line(node: yaml.Node | yaml.Event) -> int:
    return int(node.start_mark.line) + 1 if node.start_mark else 0
