"""Grants as text: one line is the grant, the next a tenant, the next an env, to ask whether it allows them."""

from pointsman_server.domain.grants import grant_texts, parse_grant
from pointsman_server.domain.identity import PERMISSIONS, Grant, Permission, Scope

MODULES = ("pointsman_server.domain.grants", "pointsman_server.domain.identity")
LONGEST = 512
SEEDS = tuple(
    text.encode()
    for text in (
        *("reader:team-a\nteam-a\nprod", "reader+writer:team-*:prod\nteam-b\nprod", "admin:*\n\n", "admin:a*\n\n"),
        *(
            "auditor:*a*b*c*\nxaxbxc",
            "reader:**",
            "reader:a:b:c",
            "root:a",
            "reader+:a",
            "reader:\n",
            ":",
            "reader:a\n\0",
        ),
        "reader:" + "*a" * 31 + "\n" + "a" * 60 + "b",
        "reader:\N{FULLWIDTH LATIN SMALL LETTER A}",
        "reader:\x1b[31m",
    )
)
WORDS = (b"reader", b"writer", b"auditor", b"admin", b":", b"+", b"*", b"team-", b"\n")


def check(data: bytes) -> None:
    """Read a grant, and ask it."""
    text, tenant, env, *_ = [*data.decode("utf-8", "replace").split("\n"), "", ""]
    try:
        grant = parse_grant(text)
    except ValueError as error:
        assert str(error).isprintable()
        assert "is no grant" in str(error)
        return
    (written,) = grant_texts(grant)
    assert parse_grant(written) == grant, "means something else when it is written and read"
    for permission in Permission:
        allowed = grant.allows(permission, Scope(tenant, env))
        assert allowed == _allows(grant, permission, tenant, env), f"{text!r} and {permission} in {tenant!r}/{env!r}"


def _allows(grant: Grant, permission: Permission, tenant: str, env: str) -> bool:
    has_it = any(permission in PERMISSIONS[role] for role in grant.roles)
    return has_it and _covers(grant.tenants[0].text, tenant) and _covers(grant.envs[0].text, env)


def _covers(pattern: str, name: str) -> bool:
    """Match by a simple and slow algorithm, one character after another; only ``*`` covers the empty name."""
    if not name:
        return pattern == "*"
    reached = {0}
    for character in pattern:
        if character == "*":
            reached = set(range(min(reached, default=len(name) + 1), len(name) + 1))
        else:
            reached = {at + 1 for at in reached if at < len(name) and name[at] == character}
    return len(name) in reached
