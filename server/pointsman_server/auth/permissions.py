"""Who may do what: the policy, and the check that every call passes.

What no rule and no grant of the credential allows is denied; nothing denies what another rule allows, so the order of
rules does not matter (as in the RBAC of Kubernetes).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pointsman_server.domain.access_errors import Forbidden
from pointsman_server.domain.grants import grant_texts
from pointsman_server.domain.identity import PERMISSIONS, Grant, Identity, Pattern, Permission, Scope
from pointsman_server.runtime.bounded_dict import put_bounded

# Upper bounds of the caches; a new entry replaces the oldest. A decision takes about 300 bytes.
MOST_DECISIONS = 50_000
MOST_IDENTITIES = 10_000


@dataclass(frozen=True, slots=True)
class Rule:
    """Grants for a caller that matches one of ``subjects`` and, where ``claim`` is named, has ``value`` in that claim.

    One of the two may be missing; a rule without both matches no caller. ``name`` is for error texts.
    """

    name: str
    grants: tuple[Grant, ...]
    subjects: tuple[Pattern, ...] = ()
    claim: str = ""
    value: str = ""

    def applies_to(self, identity: Identity) -> bool:
        """Return whether the rule matches ``identity``."""
        return self.refuses(identity) == ""

    def refuses(self, identity: Identity) -> str:
        """Return why the rule does not match ``identity``; empty if it does."""
        if problem := self.refuses_subject(identity.subject):
            return problem
        if self.claim and not _holds(identity.claims.get(self.claim), self.value):
            return f"the claim {self.claim} does not hold {self.value}"
        return ""

    def refuses_subject(self, subject: str) -> str:
        """Return why the rule does not match ``subject`` whatever its claims are; empty if it may."""
        if not self.subjects and not self.claim:
            return "it names no caller"
        if self.subjects and not any(pattern.covers(subject) for pattern in self.subjects):
            return f"the subject {subject} is none of {_texts(self.subjects)}"
        return ""


@dataclass(frozen=True, slots=True)
class Policy:
    """Rules that add up."""

    rules: tuple[Rule, ...] = ()

    def grants_of(self, identity: Identity) -> tuple[Grant, ...]:
        """Return all grants of ``identity``: those of its credential, and those of the rules that match it."""
        return identity.grants + tuple(
            grant for rule in self.rules if rule.applies_to(identity) for grant in rule.grants
        )


@dataclass(frozen=True, slots=True)
class Reason:
    """Whether one rule, or one grant of the credential, allows the call, and why."""

    source: str
    allows: bool
    why: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Whether a call is allowed, with the reason of each rule and each grant of the credential."""

    allowed: bool
    reasons: tuple[Reason, ...]


class Permissions:
    """Checks calls by a policy. When the policy changes, cached decisions are dropped.

    Decisions are cached per identity object, not per equal identity: comparing identities ignores claims, but decisions
    depend on them. It is fast because the authenticator returns the same object for the same credential.
    """

    def __init__(
        self,
        policy: Callable[[], Policy],
        *,
        most_decisions: int = MOST_DECISIONS,
        most_identities: int = MOST_IDENTITIES,
    ) -> None:
        self._policy = policy
        self._most_decisions = most_decisions
        self._most_identities = most_identities
        self._decided_by: Policy | None = None
        # The identity is kept beside its grants: while it lives, no other object has its id().
        self._decisions: dict[tuple[int, Permission, Scope], tuple[Identity, bool]] = {}
        # A cache of its own, because a batch checks many scopes of one identity.
        self._grants: dict[int, tuple[Identity, tuple[Grant, ...]]] = {}

    @property
    def policy(self) -> Policy:
        """The policy of now: another object after each change. Raises AccessUnavailable before the first was loaded."""
        return self._policy()

    def check(self, identity: Identity, permission: Permission, scope: Scope) -> None:
        """Raise Forbidden unless ``identity`` has ``permission`` in ``scope``. Raises what ``allows`` raises."""
        if not self.allows(identity, permission, scope):
            raise Forbidden(identity.subject, permission, scope.tenant, scope.env)

    def allows(self, identity: Identity, permission: Permission, scope: Scope) -> bool:
        """Return whether ``identity`` has ``permission`` in ``scope``.

        Raises AccessUnavailable before the first policy was loaded.
        """
        policy = self._policy()
        if policy is not self._decided_by:
            self._decisions.clear()
            self._grants.clear()
            self._decided_by = policy
        key = (id(identity), permission, scope)
        known = self._decisions.get(key)
        if known is None:
            known = (identity, _any_allows(self._grants_of(identity, policy), permission, scope))
            put_bounded(self._decisions, key, known, self._most_decisions)
        return known[1]

    def explain(
        self, identity: Identity, permission: Permission, scope: Scope, *, claims_known: bool = True
    ) -> Explanation:
        """Return what ``check`` decides, and why.

        Without ``claims_known`` the identity has none of its claims, and a rule that needs one says so: what it would
        grant is left out.
        """
        policy = self._policy()
        reasons = (
            *_own_reasons(identity, permission, scope),
            *_reasons(policy, identity, permission, scope, claims_known=claims_known),
        )
        return Explanation(_any_allows(policy.grants_of(identity), permission, scope), reasons)

    def _grants_of(self, identity: Identity, policy: Policy) -> tuple[Grant, ...]:
        known = self._grants.get(id(identity))
        if known is None:
            known = (identity, policy.grants_of(identity))
            put_bounded(self._grants, id(identity), known, self._most_identities)
        return known[1]


def _any_allows(grants: tuple[Grant, ...], permission: Permission, scope: Scope) -> bool:
    return any(grant.allows(permission, scope) for grant in grants)


def _own_reasons(identity: Identity, permission: Permission, scope: Scope) -> Iterator[Reason]:
    for number, grant in enumerate(identity.grants, 1):
        why = _refusal(grant, permission, scope)
        text = ", ".join(grant_texts(grant))
        yield Reason(f"grant {number} of the {identity.credential}", not why, why or f"{text} allows it")


def _reasons(
    policy: Policy, identity: Identity, permission: Permission, scope: Scope, *, claims_known: bool
) -> Iterator[Reason]:
    for rule in policy.rules:
        why = rule.refuses(identity)
        if not claims_known and rule.claim and not rule.refuses_subject(identity.subject):
            why = f"it needs the claim {rule.claim} to hold {rule.value}; what the subject's JWT claims is not known"
        if why:
            yield Reason(rule.name, allows=False, why=why)
            continue
        refusals = [_refusal(grant, permission, scope) for grant in rule.grants]
        allowing = [grant for grant, refusal in zip(rule.grants, refusals, strict=True) if not refusal]
        texts = ", ".join(text for grant in allowing for text in grant_texts(grant))
        yield Reason(rule.name, bool(allowing), f"{texts} allows it" if allowing else "; ".join(refusals))


def _refusal(grant: Grant, permission: Permission, scope: Scope) -> str:
    """Return why a grant does not allow ``permission`` in ``scope``; empty if it does."""
    if grant.allows(permission, scope):
        return ""
    if not any(permission in PERMISSIONS[role] for role in grant.roles):
        roles = ", ".join(sorted(grant.roles))
        needed = " or ".join(role for role, permitted in PERMISSIONS.items() if permission in permitted)
        return f"{roles} has no {permission}: {needed} has"
    if not any(pattern.covers(scope.tenant) for pattern in grant.tenants):
        return f"its tenants are {_texts(grant.tenants)}, not {scope.tenant or 'all'}"
    return f"its envs are {_texts(grant.envs)}, not {scope.env or 'all'}"


def _texts(patterns: tuple[Pattern, ...]) -> str:
    return ", ".join(pattern.text for pattern in patterns)


def _holds(claim: object, value: str) -> bool:
    return claim == value or (isinstance(claim, list | tuple) and value in claim)
