"""Identities, permissions and grants. No I/O.

Invariants: a subject names one caller, whatever the kind of the credential, because each kind has its own prefix
(Kubernetes has ``--oidc-username-prefix`` for the same reason: a JWT must not be able to claim the name of an API key).
What is not granted is denied. The absence of something grants nothing.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import NamedTuple


class Credential(StrEnum):
    """The kind of credential that identifies the caller; errors name it by this text."""

    BEARER_TOKEN = "bearer token"  # noqa: S105 - no password
    API_KEY = "api key"
    CERTIFICATE = "client certificate"
    NONE = "none"


class Permission(StrEnum):
    """An action on routes that grants allow."""

    READ = "routes.read"
    WRITE = "routes.write"
    HISTORY = "changes.read"


class AccessRole(StrEnum):
    """A named set of permissions."""

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
    """A pattern of names: ``*`` matches any characters, none included; ``*`` alone matches all names."""

    text: str

    @cached_property
    def _expression(self) -> re.Pattern[str]:
        first, *others = map(re.escape, self.text.split(ANY))
        # Each literal between two stars matches at its first occurrence, without backtracking (atomic groups), so that
        # no name takes long to match. It finds every match: the earliest occurrence leaves the most for the rest.
        between = "".join(f"(?>.*?{literal})" for literal in others[:-1])
        return re.compile(first + between + "".join(f".*{last}" for last in others[-1:]), re.DOTALL)

    def covers(self, name: str) -> bool:
        """Return whether ``name`` matches. The empty name means all names, which only ``*`` covers."""
        return self.text == ANY if not name else self._expression.fullmatch(name) is not None


class Scope(NamedTuple):
    """The tenant and the env that a call reads or writes; empty for all of them.

    A tuple, because each call makes one and looks up the cached decision by it.
    """

    tenant: str
    env: str


@dataclass(frozen=True, slots=True)
class Grant:
    """Grants roles in the tenants and envs that match any of the patterns."""

    roles: frozenset[AccessRole]
    tenants: tuple[Pattern, ...]
    envs: tuple[Pattern, ...] = (Pattern(ANY),)

    def allows(self, permission: Permission, scope: Scope) -> bool:
        """Return whether this grant alone allows ``permission`` in all of ``scope``."""
        return (
            any(permission in PERMISSIONS[role] for role in self.roles)
            and any(pattern.covers(scope.tenant) for pattern in self.tenants)
            and any(pattern.covers(scope.env) for pattern in self.envs)
        )


EVERYTHING = Grant(frozenset({AccessRole.ADMIN}), (Pattern(ANY),))


@dataclass(frozen=True, slots=True)
class Identity:
    """An authenticated caller; ``subject`` is the actor of its changes.

    ``grants`` are those of the credential itself; a policy may grant more by subject or by ``claims``, the verified
    claims of a JWT. ``expires_at`` is when the credential expires, in seconds of Unix time.
    """

    subject: str
    credential: Credential
    grants: tuple[Grant, ...] = ()
    claims: Mapping[str, object] = field(default_factory=dict, hash=False, compare=False)
    expires_at: float = math.inf


_PREFIXES: Mapping[str, Credential] = {
    "jwt:": Credential.BEARER_TOKEN,
    "key:": Credential.API_KEY,
    "spiffe://": Credential.CERTIFICATE,
    "dns:": Credential.CERTIFICATE,
}
SUBJECT_PREFIXES = tuple(_PREFIXES)
"""What subjects begin with."""


def credential_of(subject: str) -> Credential | None:
    """Return the kind of the credential that callers with this subject have; None if it is no subject."""
    found = (kind for prefix, kind in _PREFIXES.items() if subject.startswith(prefix) and len(subject) > len(prefix))
    return next(found, None)


ANONYMOUS = Identity("anonymous", Credential.NONE, (EVERYTHING,))
"""The caller of a server that does not authenticate."""
