"""Names of resources: what a client asks for, and the route or family that it means.

``version~env~service~tenant`` names a route, ``env~service~tenant`` a family. ``~`` is in no part of a key, so nothing
is escaped. All resources of one such name, the *root*, have names that are the root, or the root and a suffix.
"""

import re

from pointsman.rules import InvalidKey, split_key
from pointsman_server.domain.routes import RouteKey

SUFFIX = "~~"
WILDCARD = "*"
# gRFC A47: xds://AUTHORITY/NAME becomes the new style of names. Context parameters ("?a=b") select nothing here.
_NEW_STYLE = re.compile(r"xdstp://[^/]*/envoy\.config\.listener\.v3\.Listener/([^?#]*)")


def root_of(name: str) -> str:
    """Return the root of the name of a resource of any type."""
    if name.startswith("xdstp:"):
        match = _NEW_STYLE.match(name)
        name = match[1] if match else name
    return name.partition(SUFFIX)[0]


def key_of(root: str) -> RouteKey | None:
    """Return the route, or the family, that a root names; None if it is no name of either."""
    parts = root.split("~")
    try:
        if len(parts) == 4:
            return RouteKey(*split_key("/".join(reversed(parts))))
        if len(parts) == 3:
            return RouteKey(*split_key("/".join((*reversed(parts), "v"))))._replace(version="")
    except InvalidKey:
        pass
    return None


def root_name(key: RouteKey) -> str:
    """Return the root that names ``key``: the inverse of ``key_of``."""
    parts = (key.version, key.env, key.service, key.tenant)
    return "~".join(parts if key.version else parts[1:])
