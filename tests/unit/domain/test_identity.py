"""What a grant allows: nothing that it does not name."""

from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman_server.domain.identity import (
    ANONYMOUS,
    PERMISSIONS,
    AccessRole,
    Credential,
    Grant,
    Pattern,
    Permission,
    Scope,
    credential_of,
)

READ, WRITE, HISTORY = Permission.READ, Permission.WRITE, Permission.HISTORY


def grant(role: AccessRole = AccessRole.READER, tenant: str = "team-a", env: str = "*") -> Grant:
    return Grant(frozenset({role}), (Pattern(tenant),), (Pattern(env),))


@pytest.mark.parametrize(
    ("pattern", "name", "covered"),
    [
        ("team-a", "team-a", True),
        ("team-a", "team-b", False),
        ("team-a", "team-ab", False),
        ("team-*", "team-b", True),
        ("team-*", "xteam-b", False),
        ("*-prod", "team-prod", True),
        ("a*c", "abc", True),
        ("a*c", "ab", False),
        # A dot is a dot, and so is everything else that means something to regular expressions.
        ("a.c", "abc", False),
        ("a.c", "a.c", True),
        ("[ab]", "a", False),
        ("*", "anything", True),
        ("", "team-a", False),
    ],
)
def test_a_pattern_covers_what_it_spells_with_a_star_for_any_characters(pattern: str, name: str, covered: bool) -> None:
    assert Pattern(pattern).covers(name) is covered


@pytest.mark.parametrize(("pattern", "covered"), [("*", True), ("team-*", False), ("**", False), ("team-a", False)])
def test_all_names_are_covered_by_a_lone_star_only(pattern: str, covered: bool) -> None:
    assert Pattern(pattern).covers("") is covered


@pytest.mark.parametrize(
    ("role", "allowed"),
    [
        (AccessRole.READER, {READ}),
        (AccessRole.WRITER, {WRITE}),
        (AccessRole.AUDITOR, {HISTORY}),
        (AccessRole.ADMIN, {READ, WRITE, HISTORY}),
    ],
)
def test_a_role_allows_its_permissions_and_no_other(role: AccessRole, allowed: set[Permission]) -> None:
    assert {each for each in Permission if grant(role).allows(each, Scope("team-a", "prod"))} == allowed


def test_every_role_says_what_it_permits() -> None:
    assert set(PERMISSIONS) == set(AccessRole)


@pytest.mark.parametrize(
    ("scope", "allowed"),
    [
        (Scope("team-a", "staging"), True),
        (Scope("team-a", "prod"), False),
        (Scope("team-b", "staging"), False),
        (Scope("team-a", ""), False),
        (Scope("", "staging"), False),
        (Scope("", ""), False),
    ],
)
def test_a_grant_holds_in_its_tenants_and_envs_and_over_all_of_them_only_with_a_star(
    scope: Scope, allowed: bool
) -> None:
    assert grant(env="staging").allows(READ, scope) is allowed


def test_without_authentication_every_caller_may_do_everything() -> None:
    (everything,) = ANONYMOUS.grants
    assert all(everything.allows(each, Scope("", "")) for each in Permission)


def test_no_name_makes_a_pattern_take_for_ever() -> None:
    # Left to itself, the expression tries every way to share the name out among the stars.
    assert not Pattern("*a" * 20 + "*b").covers("a" * 5_000)
    assert Pattern("*a" * 20 + "*b").covers("a" * 5_000 + "b")


@given(st.text("ab*", max_size=6), st.text("ab", min_size=1, max_size=8))
def test_a_pattern_agrees_with_the_shell(pattern: str, name: str) -> None:
    assert Pattern(pattern).covers(name) is fnmatchcase(name, pattern)


@pytest.mark.parametrize(
    ("subject", "credential"),
    [
        ("jwt:alice", Credential.BEARER_TOKEN),
        ("key:ci", Credential.API_KEY),
        ("spiffe://td/ns/cart", Credential.CERTIFICATE),
        ("dns:cart.internal", Credential.CERTIFICATE),
        ("jwt:", None),
        ("alice", None),
        ("", None),
    ],
)
def test_a_subject_says_what_kind_of_credential_it_has(subject: str, credential: Credential | None) -> None:
    assert credential_of(subject) is credential
