"""What routes and families are called in xDS: ``version~env~service~tenant`` and ``env~service~tenant``.

``~`` is in no part of a key, so that nothing is escaped.
"""

from pointsman.keys import FamilyKey, RouteKey, as_route_or_family

AUTHORITY = "pointsman"
"""The authority that every bootstrap of ours knows, for ``xds://pointsman/NAME`` (gRFC A47)."""


def name(key: RouteKey | FamilyKey | str) -> str:
    """Return the name of a route, or of a family. Raises InvalidArgument for a key that names neither."""
    parts = str(as_route_or_family(key)).split("/")
    return "~".join(reversed(parts))


def target(key: RouteKey | FamilyKey | str, *, authority: str = "") -> str:
    """Return the target of a gRPC channel: ``xds:///v2~prod~payments~team-a`` for ``team-a/payments/prod/v2``.

    Without a version (``team-a/payments/prod``) the channel follows the traffic of the family.

    Args:
        key: ``tenant/service/env/version`` or ``tenant/service/env``, as text or as a key.
        authority: an authority of the bootstrap, as in ``xds://pointsman/NAME``; empty: the default servers.

    Raises InvalidArgument for a key that names neither a route nor a family.
    """
    return f"xds://{authority}/{name(key)}"
