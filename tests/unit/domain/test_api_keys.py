"""The text of an API key, and what is kept of it."""

import re
import string
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman_server.domain.api_keys import ApiKey, check_name, digest_of, mint, parse

# RFC 6750 §2.1: what a bearer token may consist of.
B64TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")


def test_a_key_is_one_word_and_a_bearer_token() -> None:
    text = mint().text
    assert re.fullmatch(r"pmk_[a-z2-7]{10}_[0-9A-Za-z]{49}", text)
    assert re.fullmatch(r"\w+", text)
    assert B64TOKEN.fullmatch(text)


def test_no_two_keys_are_the_same() -> None:
    assert len({mint().text for _ in range(100)}) == len({mint().id for _ in range(100)}) == 100


def test_what_is_minted_is_read_back() -> None:
    minted = mint()
    key_id, secret = parse(minted.text)
    assert (key_id, digest_of(secret)) == (minted.id, minted.digest)


# One for all examples: hypothesis repeats them, and what it draws depends on the text.
TEXT = mint().text


@given(st.data())
def test_a_key_that_is_cut_short_or_mistyped_is_none(data: st.DataObject) -> None:
    text = TEXT
    place = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(
        st.sampled_from(string.ascii_letters + string.digits + "_ \n\0é").filter(lambda c: c != text[place])
    )
    for wrong in (text[:place], text[place + 1 :], text[:place] + other + text[place + 1 :], text + other, " " + text):
        with pytest.raises(ValueError, match=r"^it is not a whole API key$"):
            parse(wrong)


def test_neither_a_key_nor_a_new_one_prints_its_secret() -> None:
    minted = mint()
    secret = parse(minted.text)[1]
    key = ApiKey(minted.id, "ci", minted.digest, (), datetime.now(UTC), "ann")
    for text in (repr(minted), str(minted), repr(key), str(key), repr(key.identity)):
        assert secret not in text
        assert repr(minted.digest) not in text


@pytest.mark.parametrize("name", ["", "-ci", "ci-", "a/b", "a b", "é", "a" * 64, "ci\n", "*", "ci:x"])
def test_a_name_is_a_key_part(name: str) -> None:
    check_name("ci-1.x_y")
    with pytest.raises(ValueError, match="must be 1 to 63"):
        check_name(name)
