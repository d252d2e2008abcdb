"""One token: each thing that can be wrong with it has a word and a text that says what to do, and quotes nothing."""

import time
from typing import Any

import pytest

from pointsman_server.adapters.jwt.keys import Keys, parse_keys
from pointsman_server.adapters.jwt.verifier import MESSAGES, Rules, TokenVerifier
from pointsman_server.domain.access_errors import AccessUnavailable, Unauthenticated
from pointsman_server.domain.grants import parse_grant
from pointsman_server.domain.identity import Credential
from pointsman_server.runtime.refreshed import Refreshed, RefreshFailed
from tests.support.bad_tokens import BAD_CLAIMS, BAD_TOKENS, EC, OKP, RSA
from tests.support.fakes import ManualClock
from tests.support.issuer import AUDIENCE, ISSUER, SigningKey, forged, jwks

ALGORITHMS = ("RS256", "ES256", "EdDSA")


class Issuer:
    """Publishes ``text``, or nothing."""

    def __init__(self, text: bytes | None) -> None:
        self.text = text
        self.asked = 0

    async def load(self) -> Keys:
        self.asked += 1
        if self.text is None:
            raise RefreshFailed("down")
        return parse_keys(self.text, ALGORITHMS)


async def verifier_of(issuer: Issuer, now: ManualClock | None = None, **rules: Any) -> TokenVerifier:
    keys = Refreshed("the keys", issuer.load, interval=300, now=now or ManualClock())
    await keys.renew()
    return TokenVerifier(keys, Rules(ISSUER, AUDIENCE, rules.pop("algorithms", ALGORITHMS), **rules))


@pytest.fixture
async def verifier() -> TokenVerifier:
    return await verifier_of(Issuer(jwks(EC, RSA, OKP)), leeway=30, grants_claim="pointsman")


async def problem_of(verifier: TokenVerifier, token: str) -> str:
    """Have it refused; whatever the reason, the text is the fixed one."""
    with pytest.raises(Unauthenticated) as caught:
        await verifier.verify(token)
    error = caught.value
    assert error.metadata == {"credential": "bearer token", "problem": error.problem}
    assert error.message == MESSAGES[error.problem]
    assert error.__cause__ is None, "the texts of PyJWT quote the token"
    return error.problem


@pytest.mark.parametrize("key", [EC, RSA, OKP], ids=lambda key: key.kind)
async def test_a_good_token_says_who_calls_until_it_expires(verifier: TokenVerifier, key: SigningKey) -> None:
    expiry = int(time.time()) + 600

    identity = await verifier.verify(key.token(exp=expiry, groups=["ops"]))

    assert (identity.subject, identity.credential) == ("jwt:checkout", Credential.BEARER_TOKEN)
    assert identity.expires_at == expiry + 30
    assert identity.claims["groups"] == ["ops"]
    assert identity.grants == ()


@pytest.mark.parametrize("what", BAD_CLAIMS)
async def test_a_token_that_says_the_wrong_things_is_refused(verifier: TokenVerifier, what: str) -> None:
    problem, claims = BAD_CLAIMS[what]

    assert await problem_of(verifier, EC.token(**claims)) == problem


@pytest.mark.parametrize(
    "claims", [{"aud": ["billing", AUDIENCE]}, {"sub": "x" * 200}, {"sub": "Jörg"}, {"typ": "anything"}, {"nbf": 0}]
)
async def test_what_is_just_right_is_let_in(verifier: TokenVerifier, claims: dict[str, Any]) -> None:
    assert (await verifier.verify(EC.token(**claims))).subject.startswith("jwt:")


@pytest.mark.parametrize("claim", ["exp", "nbf", "iat"])
async def test_within_the_leeway_the_clock_of_the_issuer_may_differ(claim: str) -> None:
    verifier = await verifier_of(Issuer(jwks(EC)), leeway=600)
    seconds = -300 if claim == "exp" else 300

    assert (await verifier.verify(EC.token(**{claim: int(time.time()) + seconds}))).subject == "jwt:checkout"


@pytest.mark.parametrize("what", BAD_TOKENS)
async def test_a_token_that_is_not_the_issuers_is_refused(verifier: TokenVerifier, what: str) -> None:
    problem, token = BAD_TOKENS[what]

    assert await problem_of(verifier, token) == problem


async def test_an_algorithm_that_is_not_in_the_settings_is_refused_though_the_key_fits() -> None:
    verifier = await verifier_of(Issuer(jwks(EC, RSA)), algorithms=("RS256",))

    assert await problem_of(verifier, EC.token()) == "algorithm"


@pytest.mark.parametrize("key", [SigningKey("", "EC"), SigningKey("", "RSA")], ids=lambda key: key.kind)
async def test_a_token_without_a_kid_is_let_in_when_one_key_fits(key: SigningKey) -> None:
    verifier = await verifier_of(Issuer(jwks(EC, RSA)))

    assert (await verifier.verify(key.token())).subject == "jwt:checkout"


async def test_a_token_without_a_kid_is_refused_when_two_keys_fit() -> None:
    verifier = await verifier_of(Issuer(jwks(EC, SigningKey("ec-2", "EC", 1))))

    for headers in ({}, {"kid": ""}):
        assert await problem_of(verifier, SigningKey("").token(headers)) == "unknown key"


async def test_a_new_key_is_asked_for_once_a_token_names_it() -> None:
    issuer, clock = Issuer(jwks(EC)), ManualClock()
    verifier = await verifier_of(issuer, clock)
    issuer.text = jwks(EC, RSA)
    clock.advance(60)

    assert (await verifier.verify(RSA.token())).subject == "jwt:checkout"
    assert verifier.version == 2


async def test_unknown_kids_ask_the_issuer_no_more_than_one_does() -> None:
    issuer, clock = Issuer(jwks(EC)), ManualClock()
    verifier = await verifier_of(issuer, clock)
    clock.advance(60)

    for number in range(1000):
        assert await problem_of(verifier, forged({"alg": "ES256", "kid": f"k{number}"}, {})) == "unknown key"

    assert issuer.asked == 2


async def test_while_the_issuer_is_away_its_last_keys_are_good() -> None:
    issuer, clock = Issuer(jwks(EC)), ManualClock()
    verifier = await verifier_of(issuer, clock)
    issuer.text = None
    clock.advance(1_000_000)

    assert await problem_of(verifier, RSA.token()) == "unknown key"
    assert (await verifier.verify(EC.token())).subject == "jwt:checkout"


async def test_before_the_first_keys_no_caller_can_be_checked_and_the_keys_are_fetched_again() -> None:
    issuer, clock = Issuer(None), ManualClock()
    verifier = await verifier_of(issuer, clock)

    with pytest.raises(AccessUnavailable, match="has not read the keys"):
        await verifier.verify(EC.token())

    issuer.text = jwks(EC)
    clock.advance(6)
    assert (await verifier.verify(EC.token())).subject == "jwt:checkout"


async def test_a_key_that_is_withdrawn_is_good_no_more() -> None:
    issuer = Issuer(jwks(EC, RSA))
    keys = Refreshed("the keys", issuer.load, interval=300, now=ManualClock())
    await keys.renew()
    verifier = TokenVerifier(keys, Rules(ISSUER, AUDIENCE, ALGORITHMS))
    version = verifier.version
    issuer.text = jwks(RSA)
    await keys.renew()

    assert verifier.version != version
    assert await problem_of(verifier, EC.token()) == "unknown key"


GRANTS = [parse_grant("reader:team-a"), parse_grant("writer:team-*:staging")]


@pytest.mark.parametrize(
    ("claim", "granted"),
    [
        (["reader:team-a", "writer:team-*:staging"], GRANTS),
        ("reader:team-a writer:team-*:staging", GRANTS),
        ("openid profile reader:team-a", GRANTS[:1]),
        (["owner:team-a", "reader", 5, None, {}, "reader:team-a", "admin:*:a:b"], GRANTS[:1]),
        ("", []),
        ([], []),
        (5, []),
        ({"reader:team-a": True}, []),
        (None, []),
    ],
)
async def test_the_grants_of_a_token_are_those_that_can_be_read(
    verifier: TokenVerifier, claim: Any, granted: list[Any]
) -> None:
    assert list((await verifier.verify(EC.token(pointsman=claim))).grants) == granted


async def test_a_claim_that_is_not_the_one_of_the_settings_grants_nothing() -> None:
    verifier = await verifier_of(Issuer(jwks(EC)))

    assert (await verifier.verify(EC.token(pointsman="admin:*"))).grants == ()
