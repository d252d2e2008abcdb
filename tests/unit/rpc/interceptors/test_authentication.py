"""What a call shows, as both transports pass it on, and which methods ask for it."""

from typing import Any, cast

import pytest

from pointsman_server.auth.authenticator import Authenticator, CertificateNames, Credentials, limit_of_failures
from pointsman_server.domain.access_errors import Unauthenticated
from pointsman_server.domain.identity import ANONYMOUS, Credential, Identity
from pointsman_server.rpc.call import Call, current_call
from pointsman_server.rpc.interceptors import authentication
from pointsman_server.rpc.interceptors.chain import identify
from pointsman_server.rpc.interceptors.stage import Method, StreamContext

RESOLVE = Method("pointsman.v1.RouteService", "Resolve")
ME = Identity("jwt:me", Credential.BEARER_TOKEN)


class Verifier:
    """Takes one token."""

    version = 1

    async def verify(self, credential: str) -> Identity:
        if credential != "good":
            raise Unauthenticated("bearer token", "signature", "wrong")
        return ME


class Context:
    """The context of a call that shows what a test says."""

    def __init__(
        self,
        *metadata: tuple[str, str | bytes],
        peer: str = "ipv4:10.0.0.1:5",
        certificate: dict[str, list[bytes]] | None = None,
    ) -> None:
        self._metadata, self._peer, self._certificate = metadata, peer, certificate or {}

    def invocation_metadata(self) -> Any:
        return self._metadata or None

    def peer(self) -> str:
        return self._peer

    def auth_context(self) -> dict[str, list[bytes]]:
        return self._certificate


def shown(context: Context, *authorization: str) -> Credentials:
    return authentication.credentials_of(cast("Any", context), authorization)


@pytest.mark.parametrize(
    ("peer", "host"),
    [
        ("ipv4:10.0.0.1:50123", "10.0.0.1"),
        ("ipv6:%5B2001:db8:1:2:3:4:5:6%5D:50123", "2001:0db8:0001:0002"),
        ("ipv6:[2001:db8:1:2:ffff::1]:50123", "2001:0db8:0001:0002"),
        ("ipv6:%5Bfe80::1%25eth0%5D:50123", "fe80:0000:0000:0000"),
        ("ipv6:%5B::ffff:10.0.0.1%5D:50123", "10.0.0.1"),
        ("ipv6:nonsense", "ipv6"),
        ("unix:", "unix"),
        ("unix:/tmp/x", "unix"),
        ("", ""),
    ],
)
def test_a_host_is_an_address_or_the_network_of_one(peer: str, host: str) -> None:
    assert authentication.host_of(peer) == host


def test_the_names_of_a_certificate_are_read_by_kind() -> None:
    certificate = {
        "x509_pem_cert": [b"PEM"],
        "x509_common_name": [b"admin"],
        "x509_subject_alternative_name": [b"spiffe://a/b", b"a.internal"],
        "peer_uri": [b"spiffe://a/b"],
        "peer_dns": [b"a.internal"],
    }

    assert shown(Context(certificate=certificate)).certificate == CertificateNames(("spiffe://a/b",), ("a.internal",))


def test_a_certificate_without_names_is_one_all_the_same() -> None:
    assert shown(Context(certificate={"x509_pem_cert": [b"PEM"], "x509_common_name": [b"cn"]})).certificate == (
        CertificateNames()
    )


def test_without_a_certificate_there_is_none() -> None:
    assert shown(Context(certificate={"transport_security_type": [b"insecure"]})).certificate is None


def test_beside_a_header_the_certificate_does_not_count() -> None:
    assert shown(Context(certificate={"x509_pem_cert": [b"PEM"]}), "Bearer x").certificate is None


@pytest.fixture
def authenticator() -> Authenticator:
    return Authenticator(tokens=Verifier(), failures=limit_of_failures(20))


async def subject_seen(authenticator: Authenticator, method: Method, context: Context) -> str:
    """Send a call through; say whom the handler saw."""

    async def handler(_request: Any, _context: Any) -> str:
        return current_call().actor

    handle = identify(method, authentication.authenticate(authenticator)(method, handler))
    return cast("str", await handle(None, cast("Any", context)))


async def test_the_handler_sees_who_calls(authenticator: Authenticator) -> None:
    context = Context(("user-agent", "x"), ("authorization", "Bearer good"))

    assert [await subject_seen(authenticator, RESOLVE, context) for _ in range(2)] == ["jwt:me", "jwt:me"]


@pytest.mark.parametrize(
    "metadata",
    [
        [],
        [("user-agent", "x")],
        [("authorization", "Bearer bad")],
        [("authorization", "Bearer good"), ("authorization", "Bearer good")],
        [("authorization", b"Bearer good\xff")],
        [("authorization-bin", b"Bearer good")],
        [("Authorization", "Bearer good")],  # HTTP/2 names are in lower case: this one cannot come from there
    ],
)
async def test_a_call_without_a_valid_credential_does_not_reach_the_handler(
    authenticator: Authenticator, metadata: list[tuple[str, str | bytes]]
) -> None:
    # Somebody showed the good one before: what is remembered opens no other way in.
    await subject_seen(authenticator, RESOLVE, Context(("authorization", "Bearer good")))

    with pytest.raises(Unauthenticated):
        await subject_seen(authenticator, RESOLVE, Context(*metadata))


async def test_health_answers_anybody(authenticator: Authenticator) -> None:
    for name in ("Check", "Watch"):
        assert await subject_seen(authenticator, Method("grpc.health.v1.Health", name), Context()) == "anonymous"


def test_without_the_stage_a_call_is_anonymous() -> None:
    assert Call(cast("Any", Context())).identity is ANONYMOUS


class TestStreams:
    """A stream may outlive its credential."""

    WATCH = Method("pointsman.v1.RouteService", "Watch", response_streaming=True)

    async def responses(self, authenticator: Authenticator, context: Any, *between: Any) -> int:
        """Write a response before and after each of ``between``; return how many were written."""
        written = 0

        async def write(_response: Any) -> None:
            nonlocal written
            written += 1

        context.write = write
        stream = StreamContext(context)

        async def handler(_request: Any, wrapped: Any) -> None:
            await wrapped.write(b"")
            for do in between:
                do()
                await wrapped.write(b"")

        handle = identify(self.WATCH, authentication.authenticate(authenticator)(self.WATCH, handler))
        try:
            await handle(None, cast("Any", stream))
        except Unauthenticated:
            return written
        return -written

    async def test_a_valid_credential_goes_on(self) -> None:
        verifier = Verifier()
        authenticator = Authenticator(tokens=verifier, failures=limit_of_failures(20))
        context = Context(("authorization", "Bearer good"))
        assert await self.responses(authenticator, context, lambda: None, lambda: setattr(verifier, "version", 2)) == -3

    async def test_one_that_is_revoked_ends_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        verifier = Verifier()
        authenticator = Authenticator(tokens=verifier, failures=limit_of_failures(20))

        async def revoked(_credential: str) -> Identity:
            raise Unauthenticated("bearer token", "revoked", "revoked")

        def revoke() -> None:
            monkeypatch.setattr(verifier, "verify", revoked)
            verifier.version = 2

        context = Context(("authorization", "Bearer good"))
        assert await self.responses(authenticator, context, lambda: None, revoke) == 2

    async def test_one_that_expires_ends_it(self) -> None:
        now = 100.0

        class Expiring(Verifier):
            async def verify(self, credential: str) -> Identity:
                if now >= 200:
                    raise Unauthenticated("bearer token", "expired", "expired")
                return Identity("jwt:me", Credential.BEARER_TOKEN, expires_at=200.0)

        def pass_time() -> None:
            nonlocal now
            now = 200.0

        authenticator = Authenticator(tokens=Expiring(), failures=limit_of_failures(20), now=lambda: now)
        assert await self.responses(authenticator, Context(("authorization", "Bearer good")), pass_time) == 1

    async def test_streams_that_end_together_are_not_limited_as_guesses(self) -> None:
        """One key, many streams of one host: each learns that the key is revoked."""
        verifier = Verifier()
        authenticator = Authenticator(tokens=verifier, failures=limit_of_failures(2))

        def revoke() -> None:
            verifier.version += 1
            authenticator._verifiers[Credential.BEARER_TOKEN] = cast("Any", Refusing())

        class Refusing(Verifier):
            async def verify(self, credential: str) -> Identity:
                raise Unauthenticated("bearer token", "revoked", "revoked")

        for _ in range(10):
            authenticator._verifiers[Credential.BEARER_TOKEN] = verifier
            assert await self.responses(authenticator, Context(("authorization", "Bearer good")), revoke) == 1

    async def test_a_certificate_goes_on(self) -> None:
        authenticator = Authenticator(certificates=True, failures=limit_of_failures(20))
        context = Context(certificate={"x509_pem_cert": [b"PEM"], "peer_uri": [b"spiffe://a/b"]})
        assert await self.responses(authenticator, context, lambda: None) == -2

    async def test_one_that_another_call_verified_again_has_the_rights_of_then(self) -> None:
        """The grants of an API key may change while a stream is open."""
        verifier = Verifier()
        authenticator = Authenticator(tokens=verifier, failures=limit_of_failures(20))
        seen: list[Identity] = []
        granted = Identity("jwt:me", Credential.BEARER_TOKEN)

        async def verify(_credential: str) -> Identity:
            return granted

        async def handler(_request: Any, stream: Any) -> None:
            call = current_call()
            await stream.verify()
            seen.append(call.identity)
            verifier.version = 2
            verifier.verify = verify  # type: ignore[method-assign]
            await authenticator.authenticate(shown(Context(), "Bearer good"))
            await stream.verify()
            seen.append(call.identity)

        handle = identify(self.WATCH, authentication.authenticate(authenticator)(self.WATCH, handler))
        await handle(None, cast("Any", StreamContext(cast("Any", Context(("authorization", "Bearer good"))))))
        assert seen[0] is ME
        assert seen[1] is granted
