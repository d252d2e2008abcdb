"""Which credential of a call counts, who is let in, and for how long that is remembered."""

import asyncio
import math

import pytest

from pointsman_server.auth.authenticator import Authenticator, CertificateNames, Credentials, limit_of_failures
from pointsman_server.domain.access_errors import AccessUnavailable, RateLimited, Unauthenticated
from pointsman_server.domain.identity import Credential, Identity
from tests.support.fakes import Gate, ManualClock


class Verifier:
    """Takes ``good``; counts what it is asked."""

    def __init__(self, kind: Credential, good: str, expires_at: float = math.inf) -> None:
        self.kind, self.good, self.expires_at = kind, good, expires_at
        self.version = 1
        self.asked: list[str] = []
        self.down = False
        self.meanwhile = lambda: None
        self.gate = Gate()

    async def verify(self, credential: str) -> Identity:
        self.asked.append(credential)
        self.meanwhile()
        await self.gate.passing()
        if self.down:
            raise AccessUnavailable("the keys")
        if credential != self.good:
            raise Unauthenticated(self.kind, "signature", "wrong")
        return Identity(f"{self.kind}:me", self.kind, expires_at=self.expires_at)


FAILURES = 20
"""How many bad credentials a host may show at once."""


class Rig:
    """An authenticator with everything on, and its surroundings."""

    def __init__(self, most: int = 100, **off: object) -> None:
        self.clock = ManualClock()
        self.tokens = Verifier(Credential.BEARER_TOKEN, "a.b.c")
        self.api_keys = Verifier(Credential.API_KEY, "pmk_id_secret")
        self.failures = limit_of_failures(FAILURES)
        self.checked: list[tuple[str, str]] = []
        kinds: dict = {"tokens": self.tokens, "api_keys": self.api_keys, "certificates": True} | off
        self.authenticator = Authenticator(
            **kinds,
            failures=self.failures,
            checked=lambda kind, outcome: self.checked.append((kind, outcome)),
            most_remembered=most,
            now=self.clock,
        )

    async def show(self, *authorization: str, certificate: CertificateNames | None = None) -> str:
        return (await self.authenticator.authenticate(Credentials(authorization, certificate, "host"))).subject

    async def refusal(self, *authorization: str, certificate: CertificateNames | None = None) -> Unauthenticated:
        with pytest.raises(Unauthenticated) as caught:
            await self.show(*authorization, certificate=certificate)
        return caught.value


@pytest.fixture
def rig() -> Rig:
    return Rig()


SPIFFE = CertificateNames(uris=("spiffe://prod/checkout",))


class TestWhichCredentialCounts:
    @pytest.mark.parametrize(
        "header", ["Bearer a.b.c", "bearer a.b.c", "BEARER a.b.c", "Bearer   a.b.c", " Bearer a.b.c "]
    )
    async def test_a_bearer_token_goes_to_the_verifier_of_tokens(self, rig: Rig, header: str) -> None:
        assert await rig.show(header) == "bearer token:me"
        assert (rig.tokens.asked, rig.api_keys.asked) == (["a.b.c"], [])

    async def test_an_api_key_goes_to_the_verifier_of_api_keys(self, rig: Rig) -> None:
        assert await rig.show("Bearer pmk_id_secret") == "api key:me"
        assert (rig.tokens.asked, rig.api_keys.asked) == ([], ["pmk_id_secret"])

    async def test_without_a_header_the_certificate_counts(self, rig: Rig) -> None:
        assert await rig.show(certificate=SPIFFE) == "spiffe://prod/checkout"

    async def test_a_bad_header_is_not_made_good_by_a_certificate(self, rig: Rig) -> None:
        assert (await rig.refusal("Bearer x.y.z", certificate=SPIFFE)).problem == "signature"

    @pytest.mark.parametrize("second", ["Bearer a.b.c", "Bearer pmk_id_secret", "", "Basic eDp5"])
    async def test_two_headers_are_refused_also_when_one_was_seen_before(self, rig: Rig, second: str) -> None:
        await rig.show("Bearer a.b.c")

        assert (await rig.refusal("Bearer a.b.c", second)).problem == "ambiguous"
        assert (await rig.refusal(second, "Bearer a.b.c")).problem == "ambiguous"

    @pytest.mark.parametrize(
        "header", ["", "Basic eDp5", "a.b.c", "Bearer", "Bearera.b.c", "Token a.b.c", "pmk_id_secret"]
    )
    async def test_another_scheme_is_refused(self, rig: Rig, header: str) -> None:
        refusal = await rig.refusal(header)

        assert refusal.problem in {"scheme", "malformed"}
        assert "Bearer" in refusal.message

    @pytest.mark.parametrize("token", ["a.b.c,Bearer d.e.f", '"a.b.c"', "a b", "a\nb", "a\x00", "ä", "\ufffd"])
    async def test_what_is_no_token_is_not_even_checked(self, rig: Rig, token: str) -> None:
        refusal = await rig.refusal(f"Bearer {token}")

        assert refusal.problem == "malformed"
        assert rig.tokens.asked == []
        assert token not in refusal.message

    async def test_nothing_is_refused_and_the_text_says_what_there_is(self, rig: Rig) -> None:
        refusal = await rig.refusal()

        assert refusal.metadata == {"credential": "none", "problem": "missing"}
        assert all(kind in refusal.message for kind in ("token of the issuer", "API key", "client certificate"))

    @pytest.mark.parametrize(
        ("off", "header", "certificate", "kind"),
        [
            ({"tokens": None}, ["Bearer a.b.c"], None, "bearer token"),
            ({"api_keys": None}, ["Bearer pmk_id_secret"], None, "api key"),
            ({"certificates": False}, [], SPIFFE, "client certificate"),
        ],
    )
    async def test_a_kind_that_is_off_is_refused_and_the_text_says_which_are_on(
        self, off: dict, header: list[str], certificate: CertificateNames | None, kind: str
    ) -> None:
        refusal = await Rig(**off).refusal(*header, certificate=certificate)

        assert refusal.metadata == {"credential": kind, "problem": "not enabled"}
        assert refusal.message.count(" or ") == 1, "the two others"


class TestWhatIsRemembered:
    async def test_a_good_credential_is_checked_once(self, rig: Rig) -> None:
        assert [await rig.show("Bearer a.b.c") for _ in range(3)] == ["bearer token:me"] * 3
        assert len(rig.tokens.asked) == 1
        assert rig.checked == [("bearer token", "ok")]

    async def test_a_bad_one_is_checked_each_time(self, rig: Rig) -> None:
        for _ in range(2):
            await rig.refusal("Bearer x.y.z")
        assert len(rig.tokens.asked) == 2

    async def test_it_is_forgotten_when_it_expires(self, rig: Rig) -> None:
        rig.tokens.expires_at = rig.clock() + 60
        await rig.show("Bearer a.b.c")
        rig.clock.advance(59.9)
        assert rig.authenticator.recall("Bearer a.b.c") is not None

        rig.clock.advance(0.1)
        assert rig.authenticator.recall("Bearer a.b.c") is None

    async def test_it_is_checked_again_when_its_verifier_knows_better(self, rig: Rig) -> None:
        await rig.show("Bearer a.b.c")
        rig.tokens.version += 1
        rig.tokens.good = ""

        assert (await rig.refusal("Bearer a.b.c")).problem == "signature"

    async def test_what_its_verifier_learns_during_the_check_counts(self, rig: Rig) -> None:
        def learn() -> None:
            rig.tokens.version += 1

        rig.tokens.meanwhile = learn
        await rig.show("Bearer a.b.c")

        assert rig.authenticator.recall("Bearer a.b.c") is None

    async def test_it_stays_when_another_verifier_knows_better(self, rig: Rig) -> None:
        await rig.show("Bearer a.b.c")
        rig.api_keys.version += 1

        assert rig.authenticator.recall("Bearer a.b.c") is not None

    async def test_no_more_than_so_many_are_and_bad_ones_push_none_out(self) -> None:
        rig = Rig(most=2)
        headers = ("Bearer a.b.c", "bearer a.b.c", "BEARER a.b.c")
        for header in headers:
            await rig.show(header)
        for number in range(10):
            await rig.refusal(f"Bearer x.y.{number}")

        known = [rig.authenticator.recall(header) for header in headers]
        assert [identity is not None for identity in known] == [False, True, True]

    async def test_a_header_that_is_blown_up_is_not_kept(self, rig: Rig) -> None:
        for padded in (f"Bearer{' ' * 8000}a.b.c", f"Bearer a.b.c{' ' * 8000}", " Bearer a.b.c"):
            await rig.show(padded)
            assert rig.authenticator.recall(padded) is None


class TestFloodsOfBadCredentials:
    async def use_up(self, rig: Rig) -> None:
        for _ in range(FAILURES):
            await rig.refusal("Bearer x.y.z")

    async def test_over_the_bound_nothing_is_checked_and_the_caller_may_come_again(self, rig: Rig) -> None:
        await self.use_up(rig)
        rig.tokens.asked.clear()
        rig.checked.clear()

        with pytest.raises(RateLimited) as caught:
            await rig.show("Bearer a.b.c")
        assert caught.value.metadata == {"limit": "authentication.failures"}
        assert 0 < caught.value.retry_delay <= 1 / FAILURES
        assert rig.tokens.asked == []
        assert rig.checked == [("bearer token", "limited")]

    async def test_other_hosts_do_not_pay_for_it(self, rig: Rig) -> None:
        await self.use_up(rig)

        assert (await rig.authenticator.authenticate(Credentials(("Bearer a.b.c",), None, "another"))).subject

    async def test_who_was_let_in_before_is_let_in_all_the_same(self, rig: Rig) -> None:
        await rig.show("Bearer a.b.c")
        await self.use_up(rig)

        assert await rig.show("Bearer a.b.c") == "bearer token:me"

    async def test_what_is_good_or_not_shown_at_all_does_not_count(self, rig: Rig) -> None:
        for _ in range(5 * FAILURES):
            await rig.show("Bearer  a.b.c")
            await rig.refusal()
            await rig.refusal("Basic eDp5")

        await self.use_up(rig)

    async def test_that_nothing_is_known_yet_is_not_the_fault_of_the_caller(self, rig: Rig) -> None:
        rig.tokens.down = True

        for _ in range(5 * FAILURES):
            with pytest.raises(AccessUnavailable):
                await rig.show("Bearer a.b.c")
        assert set(rig.checked) == {("bearer token", "unavailable")}

    async def test_what_is_being_checked_counts_also_when_its_caller_goes_away(self, rig: Rig) -> None:
        rig.tokens.gate.close()
        crowd = [asyncio.create_task(rig.show("Bearer x.y.z")) for _ in range(FAILURES + 5)]
        await rig.tokens.gate.arrivals(FAILURES)
        for task in crowd:
            task.cancel()
        endings = await asyncio.gather(*crowd, return_exceptions=True)

        assert [type(ending) for ending in endings].count(RateLimited) == 5
        with pytest.raises(RateLimited):
            await rig.show("Bearer a.b.c")


class TestNamesOfCertificates:
    @pytest.mark.parametrize(
        ("names", "subject"),
        [
            (CertificateNames(("spiffe://prod.example/ns/a/sa/b",)), "spiffe://prod.example/ns/a/sa/b"),
            (CertificateNames(("spiffe://prod/a",), ("a.internal", "b.internal")), "spiffe://prod/a"),
            (CertificateNames((), ("Checkout.internal",)), "dns:checkout.internal"),
            (CertificateNames(("https://checkout.internal",), ("checkout.internal",)), "dns:checkout.internal"),
        ],
    )
    async def test_one_spiffe_id_or_else_one_dns_name_says_who_calls(
        self, rig: Rig, names: CertificateNames, subject: str
    ) -> None:
        assert await rig.show(certificate=names) == subject

    @pytest.mark.parametrize(
        ("names", "problem"),
        [
            (CertificateNames(("spiffe://prod/a", "spiffe://prod/b")), "ambiguous"),
            (CertificateNames(("spiffe://prod/a", "https://a"), ("a.internal",)), "ambiguous"),
            (CertificateNames(("spiffe://prod/a", "SPIFFE://prod/b")), "ambiguous"),
            (CertificateNames((), ("a.internal", "b.internal")), "ambiguous"),
            (CertificateNames(), "no name"),
            (CertificateNames(("https://a",)), "no name"),
            (CertificateNames((), ("*.internal",)), "no name"),
            (CertificateNames((), ("a b",)), "no name"),
            (CertificateNames((), ("a.internal\x00.evil",)), "no name"),
            (CertificateNames((), ("a" * 64,)), "no name"),
            (CertificateNames((), (".".join(["a" * 60] * 5),)), "no name"),
            (CertificateNames(("spiffe://prod",)), "no name"),
            (CertificateNames(("spiffe://prod/",)), "no name"),
            (CertificateNames(("spiffe://prod/a?b",)), "no name"),
            (CertificateNames(("spiffe://prod/a\n",)), "no name"),
            (CertificateNames(("spiffe:prod/a",)), "no name"),
            (CertificateNames(("spiffe://prod/" + "a" * 2048,)), "no name"),
            (CertificateNames(("SPIFFE://prod/a",)), "no name"),
        ],
    )
    async def test_anything_else_is_refused(self, rig: Rig, names: CertificateNames, problem: str) -> None:
        refusal = await rig.refusal(certificate=names)

        assert refusal.metadata == {"credential": "client certificate", "problem": problem}

    async def test_who_was_let_in_is_not_looked_at_again(self, rig: Rig) -> None:
        for _ in range(3):
            await rig.show(certificate=SPIFFE)
        assert rig.checked == [("client certificate", "ok")]
