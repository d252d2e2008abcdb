"""The keys of an issuer from a real server and from a file: what is taken, and what is not waited for."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from pointsman_server.adapters.jwt import key_source
from pointsman_server.adapters.jwt.keys import Keys, parse_keys
from pointsman_server.adapters.jwt.verifier import Rules, TokenVerifier
from pointsman_server.domain.access_errors import Unauthenticated
from pointsman_server.runtime.refreshed import LEAST_PAUSE_SECONDS, Refreshed, RefreshFailed
from tests.support.fakes import ManualClock
from tests.support.issuer import AUDIENCE, ISSUER, SigningKey, forged, jwks
from tests.support.jwks_server import JwksServer, jwks_server

KEY, NEXT = SigningKey("key-1"), SigningKey("key-2", number=1)
ALGORITHMS = ("ES256",)


@pytest.fixture
def issuer() -> Iterator[JwksServer]:
    with jwks_server(jwks(KEY)) as server:
        yield server


class Rig:
    """A verifier on a real server of keys, with a clock of the test."""

    def __init__(self, issuer: JwksServer) -> None:
        self.clock = ManualClock()
        self._url = issuer.url
        self.keys = Refreshed("the keys", self._load, interval=300, now=self.clock)
        self.verifier = TokenVerifier(self.keys, Rules(ISSUER, AUDIENCE, ALGORITHMS))

    async def _load(self) -> Keys:
        return parse_keys(await key_source.fetch(self._url, seconds=10), ALGORITHMS)


async def test_an_issuer_changes_its_keys_and_both_are_good_in_turn(issuer: JwksServer) -> None:
    rig = Rig(issuer)
    await rig.keys.renew()
    await rig.verifier.verify(KEY.token())

    issuer.body = jwks(KEY, NEXT)
    rig.clock.advance(60)
    await rig.verifier.verify(NEXT.token())
    await rig.verifier.verify(KEY.token())

    issuer.body = jwks(NEXT)
    await rig.keys.renew()
    with pytest.raises(Unauthenticated):
        await rig.verifier.verify(KEY.token())


async def test_a_thousand_unknown_kids_at_once_are_one_fetch(issuer: JwksServer) -> None:
    rig = Rig(issuer)
    await rig.keys.renew()
    rig.clock.advance(60)
    issuer.gate.clear()
    tokens = [forged({"alg": "ES256", "kid": f"kid-{number}"}, {}) for number in range(1000)]
    flood = asyncio.gather(*map(rig.verifier.verify, tokens), return_exceptions=True)
    while issuer.asked < 2:  # noqa: ASYNC110 - asks a thread
        await asyncio.sleep(0.01)

    # While all of them wait, calls with a known key do not.
    assert (await rig.verifier.verify(KEY.token())).subject == "jwt:checkout"
    issuer.gate.set()
    assert {getattr(error, "problem", error) for error in await flood} == {"unknown key"}
    assert issuer.asked == 2


async def test_a_server_that_is_away_leaves_the_last_keys_good() -> None:
    with jwks_server(jwks(KEY)) as issuer:
        rig = Rig(issuer)
        await rig.keys.renew()
    await rig.keys.renew()

    assert "cannot be reached" in rig.keys.problem
    assert (await rig.verifier.verify(KEY.token())).subject == "jwt:checkout"


async def test_a_server_that_does_not_answer_is_not_waited_for(issuer: JwksServer) -> None:
    issuer.gate.clear()

    with pytest.raises(RefreshFailed, match=r"does not answer within 0\.1 s"):
        await key_source.fetch(issuer.url, seconds=0.1)


def test_a_fetch_is_over_before_the_next_one_is_due() -> None:
    # Else each of those who wait for one would begin another when it is their turn.
    assert key_source.FETCH_SECONDS < LEAST_PAUSE_SECONDS


async def test_a_body_that_never_ends_is_not_read_to_its_end(issuer: JwksServer) -> None:
    issuer.body = b"x" * (64 << 20)

    with pytest.raises(RefreshFailed, match="more than 256 KiB"):
        await key_source.fetch(issuer.url)


@pytest.mark.parametrize("status", [301, 302, 307, 404, 500, 206])
async def test_anything_but_the_keys_is_refused_and_no_redirect_is_followed(issuer: JwksServer, status: int) -> None:
    with jwks_server(jwks(NEXT)) as other:
        issuer.status, issuer.headers = status, {"location": other.url}

        with pytest.raises(RefreshFailed, match=f"answers {status}"):
            await key_source.fetch(issuer.url)
        assert other.asked == 0


async def test_garbage_leaves_the_last_keys_good(issuer: JwksServer) -> None:
    rig = Rig(issuer)
    await rig.keys.renew()
    for body in (b"", b"<html>", b"{}", b'{"keys": [{"kty": "oct", "k": "AA"}]}', b"\x00" * 1000):
        issuer.body = body
        await rig.keys.renew()
        assert rig.keys.problem

    assert (await rig.verifier.verify(KEY.token())).subject == "jwt:checkout"
    assert rig.verifier.version == 1


async def test_a_url_of_nothing_is_refused() -> None:
    with pytest.raises(RefreshFailed, match="cannot be reached"):
        await key_source.fetch("http://127.0.0.1:1/keys")


async def test_a_file_is_read_and_bounded_like_an_answer(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(jwks(KEY))
    assert await key_source.read(path) == jwks(KEY)

    path.write_bytes(b"x" * (key_source.MOST_BYTES + 1))
    with pytest.raises(RefreshFailed, match="more than 256 KiB"):
        await key_source.read(path)

    with pytest.raises(RefreshFailed, match="No such file"):
        await key_source.read(tmp_path / "none.json")
