"""Requests for many routes that are plainly valid: found so without protovalidate.

protovalidate takes 6 µs for each route of an Import, half of the time of the import, and more for a mutation of a
Commit. So two regular expressions check all of a request together, and protovalidate only gets what they do not match.
"""

import re
from collections.abc import Iterable
from typing import Any

import protovalidate

from pointsman.rules import KEY_PART
from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1 import traffic_methods_pb2
from pointsman_server.domain.errors import FieldViolation

MOST_ROUTES = 10_000
MOST_MUTATIONS = 1_000
MOST_TARGETS, MOST_FALLBACKS, MOST_WEIGHT = 64, 16, 10_000
# Each of these is a line.
_PARTS = re.compile(rf"(?>{KEY_PART.pattern.replace('(', '(?:')}\n)*+")
_URLS = re.compile(r"(?>[A-Za-z]+:[^\n]{1,1024}\n)*+")


def is_plain_import(validator: protovalidate.Validator, request: pb.ImportRequest) -> bool:
    """Return True only for a ``request`` without violations; False means that protovalidate must decide.

    ``validator`` checks the labels, each distinct set once, and the fields that an import has once.
    """
    routes = request.routes
    if not 1 <= len(routes) <= MOST_ROUTES:
        return False
    head = pb.ImportRequest(
        routes=routes[:1], existing=request.existing, request_id=request.request_id, reason=request.reason
    )
    fields = _Fields()
    for route in routes:
        fields.key(route.key)
        fields.urls.append(route.url)
        fields.revisions.append(route.expected_revision)
        if route.HasField("labels"):
            fields.labels[route.labels.SerializeToString()] = route.labels
    return fields.are_plain() and not _violated(validator, (head, *fields.labels.values()))


def is_plain_commit(validator: protovalidate.Validator, request: pb.CommitRequest) -> bool:
    """Return True only for a ``request`` without violations; False means that they are to be looked for.

    ``validator`` checks the labels, each distinct set once, and the fields that a commit has once.
    """
    mutations = request.mutations
    if not 1 <= len(mutations) <= MOST_MUTATIONS:
        return False
    fields = _Fields()
    for mutation in mutations:
        field = mutation.WhichOneof("mutation")
        message = getattr(mutation, field) if field else None
        if message is None or message.request_id or message.reason or not fields.mutation(field or "", message):
            return False
    head = pb.CommitRequest(mutations=mutations[:1], request_id=request.request_id, reason=request.reason)
    return fields.are_plain() and not _violated(validator, (head, *fields.labels.values()))


def violations_of_commit(request: pb.CommitRequest) -> list[FieldViolation]:
    """Return the violations of what the rules in the protos do not say: each mutation is one, and has no id or reason.

    protovalidate takes ten times as long for such rules as for all others.
    """
    violations: list[FieldViolation] = []
    for number, mutation in enumerate(request.mutations):
        path, field = f"mutations[{number}]", mutation.WhichOneof("mutation")
        if field is None:
            violations.append(FieldViolation(path, "must be one of the mutations"))
            continue
        message = getattr(mutation, field)
        violations += [
            FieldViolation(f"{path}.{field}.{name}", f"must be empty: {name} of the commit is for all of its mutations")
            for name in ("request_id", "reason")
            if getattr(message, name)
        ]
    return violations


class _Fields:
    """The values of a request, by the rule that they have."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.urls: list[str] = []
        self.revisions: list[int] = [0]
        self.labels: dict[bytes, pb.Labels] = {}

    def key(self, key: Any) -> None:
        self.parts += (key.tenant, key.service, key.env, key.version)

    def mutation(self, field: str, message: Any) -> bool:
        """Take the values of a mutation; False if it has something that is not looked at here."""
        if field != "create":
            self.revisions.append(message.expected_revision)
        if field == "set_traffic":
            return self._traffic(message)
        if field == "delete_traffic":
            self.parts += (message.tenant, message.service, message.env)
            return True
        self.key(message.key)
        if field == "create":
            self.urls.append(message.url)
            if message.labels:
                self._labels(pb.Labels(labels=message.labels))
            return True
        if field == "update":
            return self._update(message)
        return field == "activate" or not message.HasField("if_unused_for")

    def are_plain(self) -> bool:
        return min(self.revisions) >= 0 and _match(_PARTS, self.parts) and _match(_URLS, self.urls)

    def _update(self, message: pb.UpdateRequest) -> bool:
        has_url, has_labels = message.HasField("url"), message.HasField("labels")
        if has_url:
            self.urls.append(message.url)
        if has_labels:
            self._labels(message.labels)
        return (has_url or has_labels) and not (message.allow_missing and message.expected_revision)

    def _traffic(self, message: traffic_methods_pb2.SetTrafficRequest) -> bool:
        targets, fallbacks = message.targets, message.fallbacks
        self.parts += (message.tenant, message.service, message.env, *fallbacks)
        self.parts += [target.version for target in targets]
        return (
            1 <= len(targets) <= MOST_TARGETS
            and len(fallbacks) <= MOST_FALLBACKS
            and all(0 <= target.weight <= MOST_WEIGHT for target in targets)
        )

    def _labels(self, labels: pb.Labels) -> None:
        self.labels[labels.SerializeToString()] = labels


def _match(rule: re.Pattern[str], values: list[str]) -> bool:
    lines = "".join([f"{value}\n" for value in values])
    # A line feed in a value is a line more.
    return lines.count("\n") == len(values) and rule.fullmatch(lines) is not None


def _violated(validator: protovalidate.Validator, messages: Iterable[Any]) -> bool:
    return any(validator.collect_violations(message) for message in messages)
