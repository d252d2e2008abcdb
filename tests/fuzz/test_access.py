"""Any credential or grant is accepted as documented, or refused without repeating it."""

from tests.fuzz.conftest import Fuzz


def test_no_token_is_let_in_that_the_issuer_did_not_sign(fuzz: Fuzz) -> None:
    fuzz("bearer_token_bytes")


def test_any_key_set_gives_public_keys_alone(fuzz: Fuzz) -> None:
    fuzz("issuer_keys_bytes")


def test_no_api_key_is_let_in_but_the_one_that_was_made(fuzz: Fuzz) -> None:
    fuzz("api_key_bytes")


def test_any_grant_grants_what_it_says(fuzz: Fuzz) -> None:
    fuzz("grant_bytes")


def test_any_policy_is_one_or_told_what_is_wrong(fuzz: Fuzz) -> None:
    fuzz("policy_bytes")
