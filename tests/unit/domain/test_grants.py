"""Grants as text: what is one, what is none and why, and there and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman_server.domain.grants import grant_texts, parse_grant
from pointsman_server.domain.identity import AccessRole, Grant, Pattern

ALL = (Pattern("*"),)


@pytest.mark.parametrize(
    ("text", "grant"),
    [
        ("reader:team-a", Grant(frozenset({AccessRole.READER}), (Pattern("team-a"),), ALL)),
        ("writer:team-*:prod", Grant(frozenset({AccessRole.WRITER}), (Pattern("team-*"),), (Pattern("prod"),))),
        (
            "reader+writer:a:b",
            Grant(frozenset({AccessRole.READER, AccessRole.WRITER}), (Pattern("a"),), (Pattern("b"),)),
        ),
        ("admin:*", Grant(frozenset({AccessRole.ADMIN}), ALL, ALL)),
        ("admin:*:*", Grant(frozenset({AccessRole.ADMIN}), ALL, ALL)),
        (f"reader:{'a' * 63}", Grant(frozenset({AccessRole.READER}), (Pattern("a" * 63),), ALL)),
    ],
)
def test_a_grant_is_roles_a_tenant_and_maybe_an_env(text: str, grant: Grant) -> None:
    assert parse_grant(text) == grant


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "write role:tenant or role:tenant:env"),
        ("reader", "write role:tenant or role:tenant:env"),
        ("reader:a:b:c", "write role:tenant or role:tenant:env"),
        ("root:team-a", "there is no role 'root': the roles are reader, writer, auditor, admin"),
        ("Reader:team-a", "there is no role 'Reader'"),
        ("reader+:team-a", "there is no role ''"),
        (":team-a", "there is no role ''"),
        ("reader:", "the tenant '' must be 1 to 63 characters"),
        ("reader:a:", "the env '' must be 1 to 63 characters"),
        ("reader:a/b", "the tenant 'a/b' must be"),
        ("reader:-a", "the tenant '-a' must be"),
        ("reader:a.", "the tenant 'a.' must be"),
        ("reader:tëam", "the tenant 'tëam' must be"),
        ("reader:a\n", "must be 1 to 63"),
        ("reader:[ab]", "the tenant '[ab]' must be"),
        (f"reader:{'a' * 64}", "must be 1 to 63"),
        # It would cover every name, but not a call that ranges over all of them.
        ("reader:**", "two * in a row: write one"),
        ("reader:a:p**d", "the env 'p**d' has two"),
    ],
)
def test_what_is_no_grant_says_why(text: str, problem: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is compared, without regular expressions
        parse_grant(text)
    assert problem in str(caught.value)


def test_several_tenants_and_envs_are_a_text_each() -> None:
    grant = Grant(
        frozenset({AccessRole.WRITER, AccessRole.READER}), (Pattern("a"), Pattern("b")), (Pattern("x"), Pattern("*"))
    )
    assert grant_texts(grant) == ["reader+writer:a:x", "reader+writer:a", "reader+writer:b:x", "reader+writer:b"]


NAMES = st.from_regex(r"\A[a-z0-9]([a-z0-9.-]{0,5}[a-z0-9])?\*?\Z").map(Pattern) | st.just(Pattern("*"))


@given(st.frozensets(st.sampled_from(AccessRole), min_size=1), NAMES, NAMES)
def test_what_is_written_is_read_back(roles: frozenset[AccessRole], tenant: Pattern, env: Pattern) -> None:
    grant = Grant(roles, (tenant,), (env,))
    assert [parse_grant(text) for text in grant_texts(grant)] == [grant]
