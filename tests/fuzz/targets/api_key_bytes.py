"""API keys as bytes. The first says whether the rest gets a check that is right, so that more than that is tried."""

import asyncio
import re

from pointsman_server.auth.authenticator import Credentials
from pointsman_server.domain import api_keys
from pointsman_server.domain.access_errors import Unauthenticated
from tests.fuzz.callers import authenticator, check_refusal, kept, key_text, key_verifier

MODULES = (
    "pointsman_server.domain.api_keys",
    "pointsman_server.auth.authenticator",
    "pointsman_server.auth.api_key_verifier",
)
LONGEST = 256
KEY_ID, GOOD = key_text(1)
BODY = GOOD[:-6].encode()
FORM = re.compile(r"pmk_[a-z2-7]{10}_[0-9A-Za-z]{49}", re.ASCII)
SEEDS = (
    *(
        b"\0" + text.encode()
        for text in (GOOD, GOOD[:-1], f"{GOOD}x", GOOD.upper(), f" {GOOD}", f"{GOOD}\n", "pmk_", "")
    ),
    *(
        b"\1" + text
        for text in (BODY, BODY[:-1] + b"2", BODY.replace(b"abc", b"xyz"), BODY + b"1", b"pmk__", b"pmk_\xff")
    ),
    b"\0" + GOOD.replace("1", "\N{MATHEMATICAL BOLD DIGIT ONE}").encode(),
)
WORDS = (b"pmk_", b"_", KEY_ID.encode())
LOOP = asyncio.new_event_loop()
AUTHENTICATOR = authenticator(api_keys=key_verifier(kept(1, "reader:a")))


def check(data: bytes) -> None:
    """Show what the bytes lead to, as a credential and as a text to be parsed."""
    text = data[1:].decode("utf-8", "replace")
    if data[:1] == b"\1":
        text += api_keys._check(text)
    _parse(text)
    header = f"Bearer {text}"
    try:
        who = LOOP.run_until_complete(AUTHENTICATOR.authenticate(Credentials((header,), None, "host")))
    except Unauthenticated as error:
        check_refusal(error, text)
        assert text != GOOD
        return
    assert (text.strip(" "), who.subject) == (GOOD, "key:key-1"), "let in by another key than was made"


def _parse(text: str) -> None:
    try:
        key_id, secret = api_keys.parse(text)
    except ValueError as error:
        assert str(error) == "it is not a whole API key"
        return
    assert FORM.fullmatch(text), "a key that no scanner finds"
    assert text.startswith(f"pmk_{key_id}_{secret}")
