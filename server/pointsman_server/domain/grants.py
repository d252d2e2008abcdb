"""Grants as people write them: in API keys, in tokens, on command lines."""

import re
from itertools import product

from pointsman_server.domain.identity import ANY, AccessRole, Grant, Pattern

FORM = "role:tenant or role:tenant:env, such as reader:team-a or reader+writer:team-*:staging"

# What a part of a route key is made of (``rules.KEY_PART``), with ``*`` wherever something may be left out.
_NAMES = re.compile(r"[A-Za-z0-9*]([A-Za-z0-9._*-]{0,61}[A-Za-z0-9*])?")
NAMES_RULE = "must be 1 to 63 characters of A-Z a-z 0-9 . _ - and *, the first and the last alphanumeric or *"
_SEPARATOR, _AND = ":", "+"


def parse_grant(text: str) -> Grant:
    """Read ``role:tenant`` or ``role:tenant:env``, several roles joined by ``+``; without an env it holds in all.

    Raises ValueError that says what is wrong.
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
    """Read the name of a role. Raises ValueError that lists them."""
    if text not in set(AccessRole):
        raise ValueError(f"there is no role {text!r}: the roles are {', '.join(AccessRole)}")
    return AccessRole(text)


def parse_names(text: str, what: str) -> Pattern:
    """Read a pattern of names of tenants or envs; ``what`` begins the text of the ValueError.

    ``**`` is refused: it would cover every name and yet not "all of them", which only ``*`` does.
    """
    if not _NAMES.fullmatch(text):
        raise ValueError(f"{what} {text!r} {NAMES_RULE}")
    if ANY * 2 in text:
        raise ValueError(f"{what} {text!r} has two * in a row: write one")
    return Pattern(text)


def grant_texts(grant: Grant) -> list[str]:
    """Write a grant: one text for each of its tenants and envs, which together grant the same."""
    roles = _AND.join(role for role in AccessRole if role in grant.roles)
    return [
        _SEPARATOR.join((roles, tenant.text) if env.text == ANY else (roles, tenant.text, env.text))
        for tenant, env in product(grant.tenants, grant.envs)
    ]
