"""Who calls, and what is granted to whom: the domain of access, without I/O.

Invariants: a subject names one caller whatever the kind of its credential, because each kind has a prefix of its own
(as Kubernetes does with ``--oidc-username-prefix``, for the same reason: no token may speak as somebody's API key).
What is not granted is denied; nothing is ever granted by the absence of something.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import NamedTuple


class Credential(StrEnum):
    """The kind of credential that showed who calls. Also what errors call it."""

    BEARER_TOKEN = "bearer token"  # noqa: S105 - no password
    API_KEY = "api key"
    CERTIFICATE = "client certificate"
    NONE = "none"


class Permission(StrEnum):
    """One thing that may be done to routes."""

    READ = "routes.read"
    WRITE = "routes.write"
    HISTORY = "changes.read"


class AccessRole(StrEnum):
    """A name for permissions that go together."""

    READER = "reader"
    WRITER = "writer"
    AUDITOR = "auditor"
    ADMIN = "admin"


PERMISSIONS: Mapping[AccessRole, frozenset[Permission]] = {
    AccessRole.READER: frozenset({Permission.READ}),
    AccessRole.WRITER: frozenset({Permission.WRITE}),
    AccessRole.AUDITOR: frozenset({Permission.HISTORY}),
    AccessRole.ADMIN: frozenset(Permission),
}

ANY = "*"


@dataclass(frozen=True)
class Pattern:
    """Names, by a text in which ``*`` stands for any characters; ``*`` alone for all names, also those to come."""

    text: str

    @cached_property
    def _expression(self) -> re.Pattern[str]:
        first, *others = map(re.escape, self.text.split(ANY))
        # What lies between two stars is taken where it comes first and never looked for again (atomic groups), so that
        # no name, however made, takes long. It is right because what comes later has only more room that way.
        between = "".join(f"(?>.*?{literal})" for literal in others[:-1])
        return re.compile(first + between + "".join(f".*{last}" for last in others[-1:]), re.DOTALL)

    def covers(self, name: str) -> bool:
        """Say whether ``name`` is meant; the empty name stands for all names, and only ``*`` covers those."""
        return self.text == ANY if not name else self._expression.fullmatch(name) is not None


class Scope(NamedTuple):
    """What a call is about: a tenant and an env, each empty where the call ranges over all of them.

    A tuple, because each call makes one, and looks up by it what was decided.
    """

    tenant: str
    env: str


@dataclass(frozen=True, slots=True)
class Grant:
    """Roles, in tenants and envs that match any of the patterns."""

    roles: frozenset[AccessRole]
    tenants: tuple[Pattern, ...]
    envs: tuple[Pattern, ...] = (Pattern(ANY),)

    def allows(self, permission: Permission, scope: Scope) -> bool:
        """Say whether this grant alone allows ``permission`` in the whole of ``scope``."""
        return (
            any(permission in PERMISSIONS[role] for role in self.roles)
            and any(pattern.covers(scope.tenant) for pattern in self.tenants)
            and any(pattern.covers(scope.env) for pattern in self.envs)
        )


EVERYTHING = Grant(frozenset({AccessRole.ADMIN}), (Pattern(ANY),))


@dataclass(frozen=True, slots=True)
class Identity:
    """Who calls: the actor of their changes is ``subject``.

    ``grants`` are those that the credential itself carries; a policy may grant more by subject or by ``claims``, the
    verified ones of a token. ``expires_at`` is when the credential ends, in seconds since the epoch of Unix.
    """

    subject: str
    credential: Credential
    grants: tuple[Grant, ...] = ()
    claims: Mapping[str, object] = field(default_factory=dict, hash=False, compare=False)
    expires_at: float = math.inf


ANONYMOUS = Identity("anonymous", Credential.NONE, (EVERYTHING,))
"""Whoever calls a server without authentication."""
