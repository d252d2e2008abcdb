"""Which of the published keys are used, and for which algorithms: RFC 7517, and RFC 8725 on confusing them."""

import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from pointsman_server.adapters.jwt.keys import MOST_KEYS, parse_keys
from pointsman_server.config.types import ALGORITHMS
from pointsman_server.runtime.refreshed import RefreshFailed
from tests.support.issuer import SigningKey, jwks, private_key

RSA, EC, OKP = SigningKey("rsa", "RSA"), SigningKey("ec", "EC"), SigningKey("okp", "OKP")
DEFAULTS = ("RS256", "ES256", "EdDSA")


def without(jwk: dict, *names: str) -> dict:
    return {name: value for name, value in jwk.items() if name not in names}


def test_each_key_is_for_its_algorithm() -> None:
    keys = parse_keys(jwks(RSA, EC, OKP), DEFAULTS)

    assert {key.kid: key.algorithms for key in keys.all} == {
        "rsa": frozenset({"RS256"}),
        "ec": frozenset({"ES256"}),
        "okp": frozenset({"EdDSA"}),
    }


def test_a_key_that_does_not_say_its_algorithm_is_for_those_that_fit_its_type_and_curve() -> None:
    keys = parse_keys(jwks(*(without(key.jwk, "alg") for key in (RSA, EC, OKP))), ALGORITHMS)

    assert {key.kid: key.algorithms for key in keys.all} == {
        "rsa": frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
        "ec": frozenset({"ES256"}),
        "okp": frozenset({"EdDSA"}),
    }


def test_another_curve_is_for_another_algorithm() -> None:
    jwk = ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP384R1()).public_key(), as_dict=True) | {"kid": "p384"}

    assert parse_keys(jwks(jwk), ALGORITHMS).all[0].algorithms == {"ES384"}
    with pytest.raises(RefreshFailed):
        parse_keys(jwks(jwk), DEFAULTS)


UNUSABLE = {
    "for encryption": EC.jwk | {"use": "enc"},
    "for other operations": EC.jwk | {"key_ops": ["sign"]},
    "with operations that are no list": EC.jwk | {"key_ops": "verify"},
    "of an algorithm that does not fit its type": EC.jwk | {"alg": "RS256"},
    "of an algorithm that is not accepted": RSA.jwk | {"alg": "RS512"},
    "of an algorithm that is no text": RSA.jwk | {"alg": ["RS256"]},
    "of a shared secret": {"kty": "oct", "k": "AAAA", "kid": "oct"},
    "of a shared secret that says RS256": {"kty": "oct", "k": "AAAA", "kid": "oct", "alg": "RS256"},
    "a private one": RSAAlgorithm.to_jwk(private_key("RSA"), as_dict=True),
    "a private one of Ed25519": OKPAlgorithm.to_jwk(private_key("OKP"), as_dict=True),
    "without a type": without(EC.jwk, "kty"),
    "without its curve": without(EC.jwk, "crv"),
    "not on its curve": EC.jwk | {"x": EC.jwk["y"]},
    "cut short": RSA.jwk | {"n": ""},
    "with a number for its modulus": RSA.jwk | {"n": 5},
    "with a kid that is no text": EC.jwk | {"kid": 1},
    "no object": "key",
    "nothing": None,
}


@pytest.mark.parametrize("what", UNUSABLE)
def test_a_key_that_does_not_fit_is_left_out_and_the_others_are_used(what: str) -> None:
    text = json.dumps({"keys": [UNUSABLE[what], OKP.jwk]}).encode()

    assert [key.kid for key in parse_keys(text, DEFAULTS).all] == ["okp"]


def test_keys_of_one_name_are_all_left_out() -> None:
    keys = parse_keys(jwks(SigningKey("a"), SigningKey("a", number=1), SigningKey("b", number=2)), DEFAULTS)

    assert [key.kid for key in keys.all] == ["b"]
    assert keys.named("a") is None


def test_without_a_name_the_one_key_that_fits_is_meant() -> None:
    keys = parse_keys(jwks(RSA, EC, SigningKey("ec-2", number=1)), DEFAULTS)

    rsa = keys.only_one_for("RS256")
    assert rsa is not None
    assert rsa.kid == "rsa"
    assert keys.only_one_for("ES256") is None, "two fit"
    assert keys.only_one_for("EdDSA") is None, "none fits"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (b"", "no JSON"),
        (b"<html>", "no JSON"),
        (b"\xff\xfe\xfd", "no JSON"),
        (b"[" * 200_000, "no JSON"),
        (b"[]", "no JWK set"),
        (b"{}", "no JWK set"),
        (b'{"keys": {}}', "no JWK set"),
        (b'{"keys": []}', "no key in it is one for ES256, EdDSA, RS256"),
        (jwks(UNUSABLE["of a shared secret"]), "no key in it"),
        (jwks(*[{"kty": "EC"}] * (MOST_KEYS + 1)), "more than 100 keys"),
    ],
)
def test_what_holds_no_key_is_refused(text: bytes, complaint: str) -> None:
    with pytest.raises(RefreshFailed, match=complaint):
        parse_keys(text, DEFAULTS)


def test_the_same_keys_are_equal_and_a_new_key_of_an_old_name_is_another() -> None:
    first, again = parse_keys(jwks(EC, RSA), DEFAULTS), parse_keys(jwks(EC, RSA), DEFAULTS)
    other = parse_keys(jwks(SigningKey("ec", number=7), RSA), DEFAULTS)

    assert first == again
    assert first != other
