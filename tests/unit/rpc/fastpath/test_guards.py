"""The checks of a caller agree with those of the interceptor chain, and count each call once."""

from typing import Any, cast

import pytest

from pointsman_server.auth.permissions import Permissions, Policy, Rule
from pointsman_server.domain.access_errors import RateLimited
from pointsman_server.domain.identity import ANONYMOUS, EVERYTHING, Credential, Identity, Pattern, Scope
from pointsman_server.rpc.fastpath.guards import Guards
from pointsman_server.rpc.interceptors.admission import Admission
from pointsman_server.runtime.rate_limiter import Limiter, Limits, Rate

SCOPE = Scope("team-a", "prod")


def let_in(guards: Guards, *tenants: str) -> Identity | None:
    return guards.let_in(lambda: None, tenants or ("team-a",), [SCOPE])


async def test_without_checks_every_caller_is_admitted_until_the_server_drains() -> None:
    admission = Admission()
    guards = Guards(admission)
    assert let_in(guards) is ANONYMOUS
    await admission.close(0)
    assert not let_in(guards)


class Authenticator:
    """Remembers one credential."""

    def recall(self, header: str) -> Identity | None:
        return Identity("key:reader", Credential.API_KEY) if header == "Bearer good" else None


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([("x-request-id", "a"), ("authorization", "Bearer good")], True),
        ([("authorization", "Bearer other")], False),
        ([("authorization", b"Bearer good")], False),
        ([("authorization", "Bearer good")] * 2, False),
        ([], False),
        (None, False),
    ],
)
def test_one_credential_that_was_verified_lately_is_let_in(headers: Any, expected: bool) -> None:
    guards = Guards(Admission(), cast("Any", Authenticator()))
    caller = guards.let_in(lambda: headers, ["team-a"], [SCOPE])
    assert (caller and caller.subject) == ("key:reader" if expected else None)


@pytest.mark.parametrize(("subject", "expected"), [("key:reader", True), ("key:other", False)])
def test_a_caller_without_the_permission_is_not_let_in(subject: str, expected: bool) -> None:
    policy = Policy((Rule("readers", (EVERYTHING,), (Pattern(subject),)),))
    guards = Guards(Admission(), cast("Any", Authenticator()), Permissions(lambda: policy))
    caller = guards.let_in(lambda: [("authorization", "Bearer good")], ["team-a"], [SCOPE])
    assert (caller is not None) == expected


def limiter(name: str, burst: int) -> Limiter:
    return Limiter(name, Rate(1, burst), now=lambda: 0)


def left(limits: Limiter, subject: str) -> int:
    taken = 0
    try:
        while taken < 100:
            limits.take(subject)
            taken += 1
    except RateLimited:
        pass
    return taken


def test_every_key_counts_against_the_caller_and_its_tenant() -> None:
    limits = Limits(limiter("identity.reads", 10), limiter("tenant.reads", 10))
    assert limits.identity
    assert limits.tenant
    guards = Guards(Admission(), limits=limits)
    assert let_in(guards, "team-a")
    assert let_in(guards, "team-a", "team-a", "team-b")
    assert (left(limits.identity, "anonymous"), left(limits.tenant, "team-a"), left(limits.tenant, "team-b")) == (
        6,
        7,
        9,
    )


@pytest.mark.parametrize("tenants", [("team-a",), ("team-a", "team-b")])
def test_a_call_over_the_limit_of_a_tenant_is_not_counted_against_the_caller(tenants: tuple[str, ...]) -> None:
    """The chain, which then refuses the call, counts it."""
    limits = Limits(limiter("identity.reads", 10), limiter("tenant.reads", 1))
    assert limits.identity
    assert limits.tenant
    limits.tenant.take("team-a")
    assert not let_in(Guards(Admission(), limits=limits), *tenants)
    assert left(limits.identity, "anonymous") == 10


def test_a_call_over_the_limit_of_the_caller_is_not_counted_against_the_tenant() -> None:
    limits = Limits(limiter("identity.reads", 1), limiter("tenant.reads", 10))
    assert limits.identity
    assert limits.tenant
    limits.identity.take("anonymous")
    assert not let_in(Guards(Admission(), limits=limits))
    assert left(limits.tenant, "team-a") == 10
