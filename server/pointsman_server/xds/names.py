"""Names of resources: what a client asks for, and the route or family that it means.

``version~env~service~tenant`` names a route, ``env~service~tenant`` a family. ``~`` is in no part of a key, so nothing
is escaped. All resources of one such name, the *root*, have names that are the root, or the root and a suffix:

==================  ================================================================================================
``ROOT``            the RouteConfiguration; the Cluster of slot 0, and its ClusterLoadAssignment
``ROOT~~N``         the Cluster of slot N
``ROOT~~N-TAG``     of an Envoy, that of slot N while its URL has a path
``ROOT~~mN``        where slot N leads first, of a slot that has fallbacks
``ROOT~~fN``        fallback N
``ROOT~~k0``        the marker, which leads nowhere: a client has it while the root is not live
==================  ================================================================================================
"""

import re
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

from pointsman.rules import InvalidKey, split_family, split_key
from pointsman_server.domain.routes import RouteKey

SUFFIX = "~~"
WILDCARD = "*"
_SEPARATOR = "~"
# gRFC A47: xds://AUTHORITY/NAME becomes the new style of names. Context parameters ("?a=b") select nothing here.
_NEW_STYLE = re.compile(r"xdstp://[^/]*/envoy\.config\.listener\.v3\.Listener/([^?#]*)")
_PART = re.compile(r"([mfk]?)(0|[1-9][0-9]{0,3})(?:-([0-9a-f]{8}))?")


class Role(StrEnum):
    """What a cluster is to its root."""

    SLOT = ""
    MEMBER = "m"
    FALLBACK = "f"
    MARKER = "k"


class Part(NamedTuple):
    """The cluster of a root that a name means. ``tag`` is of a path."""

    role: Role
    number: int
    tag: str = ""


def root_of(name: str) -> str:
    """Return the root of the name of a resource of any type."""
    if name.startswith("xdstp:"):
        match = _NEW_STYLE.match(name)
        name = match[1] if match else name
    return name.partition(SUFFIX)[0]


def part_of(name: str) -> Part:
    """Return which cluster of its root a name means. A suffix that none has means slot 0."""
    match = _PART.fullmatch(name.partition(SUFFIX)[2])
    return Part(Role(match[1]), int(match[2]), match[3] or "") if match else Part(Role.SLOT, 0)


def cluster_name(root: str, part: Part) -> str:
    """Return the name of a cluster of ``root``: the inverse of ``part_of``."""
    if part == (Role.SLOT, 0, ""):
        return root
    return f"{root}{SUFFIX}{part.role}{part.number}{'-' if part.tag else ''}{part.tag}"


def is_family(root: str) -> bool:
    """Return whether ``root`` has the form of a family's name."""
    return root.count(_SEPARATOR) == len(RouteKey._fields) - 2


@lru_cache(maxsize=16_384)
def shared(name: str) -> str:
    """Return the same object for equal names, which many streams keep, in up to four types of each.

    Bounded, as clients choose names: ``sys.intern`` of some releases of Python keeps them until the process ends.
    """
    return name


# Streams of the same names share what they keep of them; some two megabytes.
@lru_cache(maxsize=4_096)
def key_of(root: str) -> RouteKey | None:
    """Return the route, or the family, that a root names; None if it is no name of either."""
    parts = root.split(_SEPARATOR)
    text = "/".join(reversed(parts))
    try:
        if len(parts) == len(RouteKey._fields):
            return RouteKey(*split_key(text))
        tenant, service, env = split_family(text)
    except InvalidKey:
        return None
    return RouteKey(tenant, service, env, "")


def root_name(key: RouteKey) -> str:
    """Return the root that names ``key``: the inverse of ``key_of``."""
    parts = (key.version, key.env, key.service, key.tenant)
    return _SEPARATOR.join(parts if key.version else parts[1:])
