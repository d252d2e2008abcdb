"""Explain: who may have the answer, and who may ask about others."""

import pytest

from pointsman.v1.route_service_pb2 import ExplainResponse
from pointsman_server.auth.api_key_verifier import ApiKeyVerifier
from pointsman_server.auth.permissions import Permissions, Policy, Rule
from pointsman_server.domain.access_errors import Forbidden
from pointsman_server.domain.api_keys import mint
from pointsman_server.domain.errors import InvalidField
from pointsman_server.domain.grants import parse_grant
from pointsman_server.domain.identity import ANONYMOUS, Credential, Identity, Pattern, Scope
from pointsman_server.ports.credentials import KeyDraft
from pointsman_server.rpc.methods.explained_permission import ExplainedPermission
from tests.support.fakes import MemoryApiKeyStore

WHERE = Scope("team-a", "prod")
READER, AUDITOR = parse_grant("reader:team-a"), parse_grant("auditor:team-a")
POLICY = Policy(
    (
        Rule("readers", (READER,), (Pattern("jwt:a*"), Pattern("spiffe://td/*"))),
        Rule("operators", (READER,), claim="groups", value="ops"),
    )
)


def jwt(subject: str, *grants, **claims) -> Identity:
    return Identity(subject, Credential.BEARER_TOKEN, grants, claims)


@pytest.fixture
async def explained() -> ExplainedPermission:
    """The API key ``ci`` may read, ``idle`` nothing."""
    store = MemoryApiKeyStore()
    await store.create(KeyDraft("ci", (READER,), "ann", None), mint())
    await store.create(KeyDraft("idle", (), "ann", None), mint())
    keys = ApiKeyVerifier(store, interval=5)
    await keys.known.renew()
    return ExplainedPermission(Permissions(lambda: POLICY), keys)


def rules(message: ExplainResponse.Permission) -> dict[str, bool]:
    return {rule.source: rule.allows for rule in message.rules}


@pytest.mark.parametrize("subject", ["", "jwt:alice"])
def test_a_caller_learns_of_itself_whether_and_an_auditor_why(explained, subject) -> None:
    plain = explained.explain(jwt("jwt:alice"), subject, WHERE)
    assert (plain.subject, plain.permission, plain.allowed) == ("jwt:alice", "routes.read", True)
    assert rules(plain) == {}

    auditor = explained.explain(jwt("jwt:alice", AUDITOR), subject, WHERE)
    assert auditor.allowed
    assert rules(auditor) == {"grant 1 of the bearer token": False, "readers": True, "operators": False}


def test_the_claims_of_the_caller_count(explained) -> None:
    assert explained.explain(jwt("jwt:zoe", groups=["ops"]), "", WHERE).allowed
    assert not explained.explain(jwt("jwt:zoe"), "", WHERE).allowed


def test_of_others_only_who_may_read_changes_there_may_ask(explained) -> None:
    with pytest.raises(Forbidden) as caught:
        explained.explain(jwt("jwt:alice"), "jwt:bob", WHERE)
    assert caught.value.metadata == {"permission": "changes.read", "tenant": "team-a", "env": "prod"}
    with pytest.raises(Forbidden):
        explained.explain(jwt("jwt:alice", AUDITOR), "jwt:bob", Scope("team-b", "prod"))


AUDIT = jwt("jwt:audit", AUDITOR)


def test_the_claims_of_others_are_not_known_and_each_rule_that_needs_one_says_so(explained) -> None:
    of_bob = explained.explain(AUDIT, "jwt:bob", WHERE)
    assert (of_bob.subject, of_bob.allowed, rules(of_bob)) == ("jwt:bob", False, {"readers": False, "operators": False})
    assert "JWT claims is not known" in of_bob.rules[1].why
    assert explained.explain(AUDIT, "jwt:anna", WHERE).allowed


def test_a_certificate_has_no_claims(explained) -> None:
    of_cart = explained.explain(AUDIT, "spiffe://td/cart", WHERE)
    assert of_cart.allowed
    assert "does not hold" in of_cart.rules[1].why


def test_the_grants_of_an_api_key_count_and_a_key_that_does_not_exist_has_none(explained) -> None:
    of_ci, of_idle = (explained.explain(AUDIT, f"key:{name}", WHERE) for name in ("ci", "idle"))
    assert (of_ci.allowed, rules(of_ci)["grant 1 of the api key"]) == (True, True)
    assert not of_idle.allowed
    of_nobody = explained.explain(AUDIT, "key:nobody", WHERE)
    assert not of_nobody.allowed
    assert of_nobody.rules[0].why == "there is no valid API key of this name"


@pytest.mark.parametrize("subject", ["bob", "jwt:", "anonymous"])
def test_what_is_no_subject_is_malformed(explained, subject) -> None:
    with pytest.raises(InvalidField, match="must begin with jwt:, key:, spiffe://, dns:"):
        explained.explain(AUDIT, subject, WHERE)


@pytest.mark.parametrize(("subject", "expected"), [("", "anonymous"), ("jwt:bob", "jwt:bob")])
def test_where_nothing_is_checked_everything_is_allowed(subject, expected) -> None:
    message = ExplainedPermission(None, None).explain(ANONYMOUS, subject, WHERE)
    assert (message.subject, message.allowed, rules(message)) == (expected, True, {"the server": True})
