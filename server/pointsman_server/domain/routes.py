"""The domain: what a route is, what a change is, and how a change is decided.

Nothing here knows of gRPC, SQL, Redis or Kafka, and nothing here does I/O.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple, Self
from urllib.parse import urlsplit

from pointsman_server.domain.errors import FieldViolation, InvalidField

KEY_PART = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
KEY_PART_RULE = "must be 1 to 63 characters of A-Z a-z 0-9 . _ -, the first and the last alphanumeric"
URL_MAX_LENGTH = 2048
URL_FORBIDDEN = re.compile(r"[\s\x00-\x1f\x7f-\x9f\\]")
URL_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
# What nearly every URL looks like, and is surely fine: it spares all the other questions, of which a large import has
# many. A port of five digits may be too large.
URL_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,4})?(/[!-\[\]-~]*)?")


class RouteKey(NamedTuple):
    """Names one route. Every part matches ``KEY_PART``, so the text form is unambiguous.

    A tuple, because it is made and looked up for every call: three times as fast as a dataclass.
    """

    tenant: str
    service: str
    env: str
    version: str

    def __str__(self) -> str:
        return f"{self.tenant}/{self.service}/{self.env}/{self.version}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``tenant/service/env/version``. Raises InvalidField when ``text`` is no such key."""
        parts = text.split("/")
        if len(parts) != 4 or not all(KEY_PART.fullmatch(part) for part in parts):
            rule = f"must be tenant/service/env/version; each part {KEY_PART_RULE}"
            raise InvalidField([FieldViolation("key", rule)])
        return cls(*parts)

    @property
    def family(self) -> str:
        """The text form without the version: what exclusive activation ranges over."""
        return f"{self.tenant}/{self.service}/{self.env}"


@dataclass(frozen=True, slots=True)
class Route:
    """One route as of its ``revision``, the revision of its last change."""

    key: RouteKey
    url: str
    active: bool
    labels: Mapping[str, str]
    revision: int
    create_time: datetime
    update_time: datetime


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is known of one key: its route, or its absence, as of the database revision ``as_of``.

    ``as_of`` is never below the revision of the route, and between the two nothing changed for this key. ``epoch``
    names the history that ``as_of`` counts in; empty where that is not known.
    """

    key: RouteKey
    route: Route | None
    as_of: int
    epoch: str = field(default="", compare=False)


class ChangeKind(StrEnum):
    """What a change did to its route."""

    CREATED = "CREATED"
    UPDATED = "UPDATED"
    ACTIVATED = "ACTIVATED"
    DEACTIVATED = "DEACTIVATED"
    DELETED = "DELETED"


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of history: exactly one per revision, and no revision without one."""

    revision: int
    event_id: str
    kind: ChangeKind
    key: RouteKey
    before: Route | None
    after: Route | None
    actor: str
    reason: str
    request_id: str
    occur_time: datetime
    epoch: str
    traceparent: str = ""

    @property
    def snapshot(self) -> Snapshot:
        """The state of the key right after this change."""
        return Snapshot(self.key, self.after, self.revision, self.epoch)


@dataclass(frozen=True, slots=True)
class Draft:
    """A change that is decided but has no revision and no time yet; the store gives both.

    ``url``, ``active`` and ``labels`` say what the route becomes; DELETED ignores them.
    """

    kind: ChangeKind
    key: RouteKey
    before: Route | None
    url: str = ""
    active: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)


class Wanted(NamedTuple):
    """What an import wants a route to be. None leaves it as it is; a new route is active, and without labels.

    ``expected_revision`` is the one that it must be at; 0: any.
    """

    key: RouteKey
    url: str
    labels: Mapping[str, str] | None = None
    active: bool | None = None
    expected_revision: int = 0


def check_url(url: str) -> None:
    """Raise InvalidField unless ``url`` is absolute, with a host and without credentials (RFC 3986 §3)."""
    problem = url_problem(url)
    if problem:
        raise InvalidField([FieldViolation("url", problem)])


def url_problem(url: str) -> str | None:
    """Say what is wrong with ``url``, never repeating it: it may hold a secret."""
    if len(url) > URL_MAX_LENGTH:
        return f"must be at most {URL_MAX_LENGTH} characters"
    if URL_PLAIN.fullmatch(url):
        return None
    if URL_FORBIDDEN.search(url):
        return "must have no whitespace, control characters or backslashes"
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return "must be a valid URL: check its host, brackets and port"
    if not URL_SCHEME.fullmatch(parts.scheme) or not parts.hostname:
        return "must be absolute, with a scheme and a host, like https://payments.internal:8443"
    if "@" in parts.netloc:
        return "must have no credentials: hand out secrets by other means"
    return None
