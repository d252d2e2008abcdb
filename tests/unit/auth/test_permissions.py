"""Who may do what: what rules and credentials grant, nothing else, and why."""

from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman_server.auth.permissions import Permissions, Policy, Rule
from pointsman_server.domain.access_errors import AccessUnavailable, Forbidden
from pointsman_server.domain.grants import parse_grant
from pointsman_server.domain.identity import (
    PERMISSIONS,
    AccessRole,
    Credential,
    Grant,
    Identity,
    Pattern,
    Permission,
    Scope,
)

READ, WRITE = Permission.READ, Permission.WRITE
PROD, STAGING = Scope("team-a", "prod"), Scope("team-a", "staging")
READER, WRITER = parse_grant("reader:team-a"), parse_grant("writer:team-a:staging")


def identity(subject: str = "jwt:alice", *grants: Grant, **claims: object) -> Identity:
    return Identity(subject, Credential.BEARER_TOKEN, grants, claims)


def rule(*grants: Grant, subjects: tuple[str, ...] = (), claim: str = "", value: str = "", name: str = "r") -> Rule:
    return Rule(name, grants, tuple(map(Pattern, subjects)), claim, value)


def may(policy: Policy, who: Identity, permission: Permission = READ, scope: Scope = PROD) -> bool:
    try:
        Permissions(lambda: policy).check(who, permission, scope)
    except Forbidden:
        return False
    return True


def test_without_a_grant_everything_is_denied() -> None:
    assert not any(may(Policy(), identity(), permission) for permission in Permission)


def test_a_denial_says_who_lacks_what_where() -> None:
    with pytest.raises(Forbidden) as caught:
        Permissions(Policy).check(identity(), WRITE, PROD)
    assert caught.value.metadata == {"permission": "routes.write", "tenant": "team-a", "env": "prod"}
    assert "jwt:alice has no routes.write in team-a/*/prod" in caught.value.message


def test_the_grants_of_the_credential_count_without_a_policy() -> None:
    assert may(Policy(), identity("jwt:alice", READER))
    assert not may(Policy(), identity("jwt:alice", READER), WRITE)


@pytest.mark.parametrize(
    ("subject", "allowed"),
    [
        ("jwt:alice", True),
        ("jwt:alice2", False),
        ("key:alice", False),
        ("key:ci-1", True),
        ("spiffe://example.org/ns/payments/sa/api", True),
        ("spiffe://example.org/ns/other/sa/api", False),
        ("spiffe://evil.org/spiffe://example.org/ns/payments/sa/api", False),
    ],
)
def test_a_rule_is_for_its_subjects(subject: str, allowed: bool) -> None:
    policy = Policy((rule(READER, subjects=("jwt:alice", "key:ci-*", "spiffe://example.org/ns/payments/*")),))
    assert may(policy, identity(subject)) is allowed


@pytest.mark.parametrize(
    ("groups", "allowed"),
    [
        ("platform", True),
        (["other", "platform"], True),
        (("platform",), True),
        ("platform-guests", False),
        ("", False),
        ([], False),
        (["platform2"], False),
        ({"platform": True}, False),
        ([["platform"]], False),
        (True, False),
        (None, False),
    ],
)
def test_a_claim_holds_its_value_as_a_text_or_in_a_list(groups: object, allowed: bool) -> None:
    policy = Policy((rule(READER, claim="groups", value="platform"),))
    assert may(policy, identity(groups=groups)) is allowed
    assert not may(policy, identity(other=groups))


def test_with_subjects_and_a_claim_both_must_fit() -> None:
    policy = Policy((rule(READER, subjects=("jwt:a*",), claim="groups", value="platform"),))
    assert may(policy, identity("jwt:alice", groups="platform"))
    assert not may(policy, identity("jwt:bob", groups="platform"))
    assert not may(policy, identity("jwt:alice"))


def test_a_rule_without_subjects_and_claim_matches_no_caller() -> None:
    assert not may(Policy((rule(READER),)), identity())


def test_rules_and_credential_add_up() -> None:
    policy = Policy((rule(READER, subjects=("jwt:alice",)), rule(WRITER, subjects=("*",))))
    assert may(policy, identity())
    assert may(policy, identity(), WRITE, STAGING)
    assert not may(policy, identity(), WRITE, PROD)
    assert may(policy, identity("jwt:alice", parse_grant("writer:team-a")), WRITE, PROD)


def test_roles_do_not_mix_across_grants() -> None:
    # Reading in one tenant and writing in another is neither in both.
    who = identity("jwt:alice", parse_grant("reader:team-a"), parse_grant("writer:team-b"))
    assert not may(Policy(), who, WRITE, Scope("team-a", "prod"))
    assert not may(Policy(), who, READ, Scope("team-b", "prod"))


def test_another_policy_counts_at_once() -> None:
    policies = [Policy((rule(READER, subjects=("jwt:alice",)),))]
    permissions, who = Permissions(lambda: policies[-1]), identity()
    permissions.check(who, READ, PROD)
    policies.append(Policy())
    with pytest.raises(Forbidden):
        permissions.check(who, READ, PROD)
    policies.append(policies[0])
    permissions.check(who, READ, PROD)


def test_equal_identities_with_other_claims_are_not_mixed_up() -> None:
    permissions = Permissions(lambda: Policy((rule(READER, claim="groups", value="platform"),)))
    member, stranger = identity(groups="platform"), identity(groups="guests")
    assert member == stranger
    permissions.check(member, READ, PROD)
    for _ in range(2):
        with pytest.raises(Forbidden):
            permissions.check(stranger, READ, PROD)


def test_what_is_remembered_is_bounded_and_right_all_the_same() -> None:
    policy = Policy()
    permissions = Permissions(lambda: policy, most_decisions=3, most_identities=2)
    for number in range(50):
        # Their ids may be reused as soon as they are freed.
        who = identity("jwt:alice", *([READER] if number % 2 else []))
        for env in ("a", "b", "c", "d"):
            try:
                permissions.check(who, READ, Scope("team-a", env))
                allowed = True
            except Forbidden:
                allowed = False
            assert allowed is bool(number % 2)
    assert (len(permissions._decisions), len(permissions._grants)) == (3, 2)


def test_a_decision_is_made_once() -> None:
    asked: list[str] = []

    class Counting(Policy):
        def grants_of(self, who: Identity) -> tuple[Grant, ...]:
            asked.append(who.subject)
            return super().grants_of(who)

    policy, who = Counting(), identity("jwt:alice", READER)
    permissions = Permissions(lambda: policy)
    for _ in range(3):
        for scope in (PROD, STAGING):
            permissions.check(who, READ, scope)
    assert asked == ["jwt:alice"]


def test_before_a_policy_is_read_nothing_is_decided() -> None:
    def not_yet() -> Policy:
        raise AccessUnavailable("the policy")

    with pytest.raises(AccessUnavailable):
        Permissions(not_yet).check(identity("jwt:alice", READER), READ, PROD)


@pytest.mark.parametrize(
    ("subject", "permission", "scope", "reasons"),
    [
        (
            "jwt:bob",
            READ,
            PROD,
            [
                ("grant 1 of the bearer token", False, "its tenants are team-b, not team-a"),
                ("first", False, "the subject jwt:bob is none of jwt:alice"),
                ("second", False, "the claim groups does not hold platform"),
            ],
        ),
        (
            "jwt:alice",
            WRITE,
            PROD,
            [
                (
                    "grant 1 of the bearer token",
                    False,
                    "reader has no routes.write: writer or admin has",
                ),
                ("first", False, "its envs are staging, not prod"),
                ("second", False, "the claim groups does not hold platform"),
            ],
        ),
        (
            "jwt:alice",
            WRITE,
            STAGING,
            [
                ("grant 1 of the bearer token", False, "reader has no routes.write: writer or admin has"),
                ("first", True, "writer:team-a:staging allows it"),
                ("second", False, "the claim groups does not hold platform"),
            ],
        ),
    ],
)
def test_an_explanation_has_a_reason_from_every_rule_and_grant(
    subject: str, permission: Permission, scope: Scope, reasons: list[tuple[str, bool, str]]
) -> None:
    policy = Policy(
        (
            rule(WRITER, subjects=("jwt:alice",), name="first"),
            rule(READER, claim="groups", value="platform", name="second"),
        )
    )
    who = identity(subject, parse_grant("reader:team-b"))
    explanation = Permissions(lambda: policy).explain(who, permission, scope)
    assert [(reason.source, reason.allows, reason.why) for reason in explanation.reasons] == reasons
    assert explanation.allowed is any(allows for _, allows, _ in reasons) is may(policy, who, permission, scope)


NAMES = st.sampled_from(["a", "ab", "b", "prod", "x-a"])
PATTERNS = st.sampled_from(["a", "a*", "*b", "*", "x-*", "prod", "p*d"])
SUBJECTS = st.sampled_from(["jwt:a", "jwt:ab", "key:a", "dns:b"])
SUBJECT_PATTERNS = st.sampled_from(["jwt:a", "jwt:*", "key:*", "*", "dns:*b"])
GRANTS = st.builds(
    Grant,
    st.frozensets(st.sampled_from(AccessRole), min_size=1, max_size=2),
    st.lists(PATTERNS.map(Pattern), min_size=1, max_size=2).map(tuple),
    st.lists(PATTERNS.map(Pattern), min_size=1, max_size=2).map(tuple),
)
GROUPS = st.sampled_from(["g", "h"])
RULES = st.builds(
    Rule,
    st.just("r"),
    st.lists(GRANTS, max_size=2).map(tuple),
    st.lists(SUBJECT_PATTERNS.map(Pattern), max_size=2).map(tuple),
    st.sampled_from(["", "groups"]),
    GROUPS,
)
CLAIMS = st.one_of(st.just({}), st.fixed_dictionaries({"groups": GROUPS | st.lists(GROUPS)}))
IDENTITIES = st.builds(
    Identity, SUBJECTS, st.just(Credential.BEARER_TOKEN), st.lists(GRANTS, max_size=1).map(tuple), CLAIMS
)
SCOPES = st.builds(Scope, NAMES | st.just(""), NAMES | st.just(""))


def covers(patterns: tuple[Pattern, ...], name: str) -> bool:
    return any(pattern.text == "*" or (name and fnmatchcase(name, pattern.text)) for pattern in patterns)


def model(rules: list[Rule], who: Identity, permission: Permission, scope: Scope) -> bool:
    """Decide as the documentation says, in the plainest way."""
    grants = list(who.grants)
    for each in rules:
        groups = who.claims.get(each.claim, [])
        fits = [covers(each.subjects, who.subject)] if each.subjects else []
        fits += [each.value in ([groups] if isinstance(groups, str) else groups)] if each.claim else []
        grants += each.grants if fits and all(fits) else []
    return any(
        any(permission in PERMISSIONS[role] for role in grant.roles)
        and covers(grant.tenants, scope.tenant)
        and covers(grant.envs, scope.env)
        for grant in grants
    )


@given(st.lists(RULES, max_size=4), IDENTITIES, st.lists(st.tuples(st.sampled_from(Permission), SCOPES), max_size=8))
def test_every_decision_is_that_of_the_model(
    rules: list[Rule], who: Identity, questions: list[tuple[Permission, Scope]]
) -> None:
    policy = Policy(tuple(rules))
    permissions = Permissions(lambda: policy)
    for permission, scope in questions * 2:  # cold, then warm
        expected = model(rules, who, permission, scope)
        try:
            permissions.check(who, permission, scope)
            allowed = True
        except Forbidden:
            allowed = False
        assert allowed is permissions.explain(who, permission, scope).allowed is expected


@given(st.lists(RULES, max_size=4), IDENTITIES, st.sampled_from(Permission), SCOPES)
def test_nothing_is_allowed_that_no_grant_names(
    rules: list[Rule], who: Identity, permission: Permission, scope: Scope
) -> None:
    named = [grant for each in rules for grant in each.grants] + list(who.grants)
    if may(Policy(tuple(rules)), who, permission, scope):
        assert any(grant.allows(permission, scope) for grant in named)


def test_claims_that_are_not_known_are_named_and_grant_nothing() -> None:
    policy = Policy(
        (
            rule(READER, claim="groups", value="ops", name="ops"),
            rule(READER, subjects=("jwt:bob",), claim="groups", value="ops", name="bob"),
            rule(WRITER, subjects=("jwt:*",), name="all"),
        )
    )

    explanation = Permissions(lambda: policy).explain(identity(), READ, PROD, claims_known=False)

    assert not explanation.allowed
    assert [(reason.source, reason.allows) for reason in explanation.reasons] == [
        ("ops", False),
        ("bob", False),
        ("all", False),
    ]
    ops, bob, _ = (reason.why for reason in explanation.reasons)
    assert ops == "it needs the claim groups to hold ops; what the subject's JWT claims is not known"
    assert bob == "the subject jwt:alice is none of jwt:bob"


def test_the_policy_of_now_is_another_object_after_a_change() -> None:
    policies = [Policy()]
    permissions = Permissions(lambda: policies[0])
    before = permissions.policy
    assert permissions.policy is before
    policies[0] = Policy((Rule("r", ()),))
    assert permissions.policy is not before
