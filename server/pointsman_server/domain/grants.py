"""Grants as text: in API keys, in JWTs, on command lines."""

import re
from itertools import product

from pointsman_server.domain.identity import ANY, AccessRole, Grant, Pattern

FORM = "role:tenant or role:tenant:env, such as reader:team-a or reader+writer:team-*:staging"

# The characters of a part of a route key (``rules.KEY_PART``), and ``*``.
_NAMES = re.compile(r"[A-Za-z0-9*]([A-Za-z0-9._*-]{0,61}[A-Za-z0-9*])?")
NAMES_RULE = "must be 1 to 63 characters of A-Z a-z 0-9 . _ - and *, the first and the last alphanumeric or *"
_SEPARATOR, _AND = ":", "+"


def parse_grant(text: str) -> Grant:
    """Parse ``role:tenant`` or ``role:tenant:env``, several roles joined by ``+``. Without an env it grants all envs.

    Raises ValueError; its text is for the user.
    """
    roles, *where = text.split(_SEPARATOR)
    if not 1 <= len(where) <= 2:
        raise ValueError(f"{text!r} is no grant: write {FORM}")
    tenant, env = (*where, ANY)[:2]
    try:
        return Grant(
            frozenset(parse_role(role) for role in roles.split(_AND)),
            (parse_names(tenant, "the tenant"),),
            (parse_names(env, "the env"),),
        )
    except ValueError as error:
        raise ValueError(f"{text!r} is no grant: {error}") from None


def parse_role(text: str) -> AccessRole:
    """Parse the name of a role. Raises ValueError, which lists the roles."""
    if text not in set(AccessRole):
        raise ValueError(f"there is no role {text!r}: the roles are {', '.join(AccessRole)}")
    return AccessRole(text)


def parse_names(text: str, what: str) -> Pattern:
    """Parse a pattern of tenants or envs. Raises ValueError, whose text begins with ``what``.

    ``**`` is rejected: it would match every name, but not cover "all names", as only ``*`` does.
    """
    if not _NAMES.fullmatch(text):
        raise ValueError(f"{what} {text!r} {NAMES_RULE}")
    if ANY * 2 in text:
        raise ValueError(f"{what} {text!r} has two * in a row: write one")
    return Pattern(text)


def grant_texts(grant: Grant) -> list[str]:
    """Format a grant: one text for each pair of a tenant and an env, which together grant the same."""
    roles = _AND.join(role for role in AccessRole if role in grant.roles)
    return [
        _SEPARATOR.join((roles, tenant.text) if env.text == ANY else (roles, tenant.text, env.text))
        for tenant, env in product(grant.tenants, grant.envs)
    ]
