"""What follows ``authorization:`` as bytes: raw, or as the parts of a token that somebody puts together or signs.

The first byte chooses. The keys are always the same ones, so that a token in SEEDS is good in every process; no input
is signed by the issuer unless it was here.
"""

import asyncio
import base64
import json
import math
from typing import Any

from jwt import api_jws

from pointsman_server.adapters.jwt.keys import Keys, parse_keys
from pointsman_server.adapters.jwt.verifier import Rules, TokenVerifier
from pointsman_server.auth.authenticator import Credentials
from pointsman_server.domain.access_errors import Unauthenticated
from pointsman_server.domain.identity import Identity
from pointsman_server.runtime.refreshed import Refreshed
from tests.fuzz.callers import ED25519, JWKS, STRANGER, authenticator, check_refusal

MODULES = ("pointsman_server.adapters.jwt", "pointsman_server.auth.authenticator", "jwt")
ISSUER, AUDIENCE = "https://issuer.test", "pointsman"
ALGORITHMS = ("EdDSA", "ES256", "RS256")
GOOD_CLAIMS = {"iss": ISSUER, "aud": AUDIENCE, "sub": "checkout", "exp": 4_000_000_000, "grants": "reader:a x:y"}
HEADERS = (
    b'{"alg":"EdDSA","kid":"okp"}',
    b'{"alg":"ES256","kid":"ec"}',
    b'{"alg":"none"}',
    b'{"alg":"HS256","kid":"okp"}',
    b'{"alg":"EdDSA","kid":"okp","crit":["exp"]}',
    b'{"alg":"EdDSA","typ":"logout+jwt"}',
    b'{"alg":["EdDSA"],"kid":{}}',
    b"[]",
)


def _claims(**other: Any) -> bytes:
    return json.dumps(GOOD_CLAIMS | other).encode()


def _signed(claims: bytes, key: object = ED25519, kid: str = "okp") -> str:
    return api_jws.encode(claims, key, "EdDSA", {"kid": kid})  # type: ignore[arg-type]  # Any of ours.


GOOD = _signed(_claims())


def _each(claim: str, *values: Any) -> list[dict[str, Any]]:
    return [{claim: value} for value in values]


STRANGE = (
    *_each("exp", 1, "4000000000", True, 10**400, 1e300, math.inf, math.nan, None, []),
    *_each("sub", "", 1, "a\0b", "\u202e", "x" * 201, None),
    *_each("aud", [], [AUDIENCE], {AUDIENCE: 1}, None),
    *_each("nbf", math.inf, 10**400, "x", []),
    *_each("iat", -math.inf, "x", 4e9),
    *_each("grants", ["admin:*", 1, "a:b:c:d"], "reader:" * 99, {"a": []}),
)
SEEDS = (
    *(
        b"\0" + text.encode()
        for text in (f"Bearer {GOOD}", f"bearer  {GOOD} ", GOOD, f"Bearer {GOOD}, {GOOD}", "Basic x")
    ),
    *(b"\0Bearer " + text for text in (b"", b"a.b.c", b"\xff\xfe", b"a" * 9000, b"pmk_x", b'"a.b.c"')),
    *(b"\0Bearer " + _signed(_claims(), STRANGER, kid).encode() for kid in ("okp", "x")),
    *(b"\1" + header + b"\0" + _claims() + b"\0" + b"s" * 64 for header in HEADERS),
    *(b"\2" + _claims(**claims) for claims in STRANGE),
    *(b"\2" + text for text in (b"", b"[]", b"{", b'{"exp":' + b"9" * 5000 + b"}", b"[" * 2000, b"\xff")),
)
WORDS = tuple(
    word.encode() for word in (*GOOD_CLAIMS, *ALGORITHMS, "none", "kid", "alg", "Bearer ", ".", "=", "crit", "b64")
)


async def _load() -> Keys:
    return parse_keys(json.dumps({"keys": JWKS}).encode(), ALGORITHMS)


def _verifier() -> TokenVerifier:
    keys = Refreshed("the keys", _load, interval=3600, least_pause=math.inf)
    asyncio.run(keys.renew())
    return TokenVerifier(keys, Rules(ISSUER, AUDIENCE, ALGORITHMS, 0.0, "grants"))


AUTHENTICATOR = authenticator(tokens=_verifier())


def check(data: bytes) -> None:
    """Show what the bytes lead to."""
    kind, rest = (data[0] % 3, data[1:]) if data else (0, b"")
    header = (_raw, _assembled, _issued)[kind](rest)
    identity = _show(header)
    if identity is None:
        return
    shown = header.strip(" ").rpartition(" ")[2]
    # The signature itself may be written in several ways; what is signed may not.
    assert kind == 2 or shown.rpartition(".")[0] == GOOD.rpartition(".")[0], "let in, and the issuer did not sign it"
    claims = json.loads(base64.urlsafe_b64decode(shown.split(".")[1] + "=="))
    assert identity.subject == f"jwt:{claims['sub']}"
    assert (claims["iss"], identity.claims) == (ISSUER, claims)
    assert 1 <= len(claims["sub"]) <= 200
    assert claims["sub"].isprintable()
    assert identity.expires_at == claims["exp"] < math.inf


def _raw(data: bytes) -> str:
    return data.decode("latin-1")


def _assembled(data: bytes) -> str:
    """Put a token together from header, claims and signature, which no one of ours signed."""
    parts = [*data.split(b"\0", 2), b"", b""][:3]
    return "Bearer " + ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


def _issued(data: bytes) -> str:
    """Have the issuer sign anything at all."""
    return f"Bearer {_signed(data)}"


def _show(header: str) -> Identity | None:
    try:
        return _now(header)
    except Unauthenticated as error:
        check_refusal(error, header.partition(" ")[2])
        return None


def _now(header: str) -> Identity:
    """Authenticate by what is known: nothing is asked for again."""
    return LOOP.run_until_complete(AUTHENTICATOR.authenticate(Credentials((header,), None, "host")))


LOOP = asyncio.new_event_loop()
