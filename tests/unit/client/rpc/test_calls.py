"""calls: when a call is tried again by the client itself: as the server asks, or with a newer token."""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2

from pointsman import AsyncClient, Client, DeadlineExceeded, PermissionDenied, ResourceExhausted, Unauthenticated
from tests.support.fake_route_service import Failure, FakeServer

KEY = "team-a/payments/prod/v2"
URL = "https://payments-v2.internal:8443"
EXPIRED = Failure(
    grpc.StatusCode.UNAUTHENTICATED,
    "the bearer token has expired",
    "UNAUTHENTICATED",
    {"credential": "bearer token", "problem": "expired"},
)


def busy(seconds: float | None, reason: str = "RATE_LIMITED") -> Failure:
    details = ()
    if seconds is not None:
        delay = Duration()
        delay.FromMilliseconds(round(seconds * 1000))
        details = (error_details_pb2.RetryInfo(retry_delay=delay),)
    return Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "slow down", reason, details=details)


def refused(problem: str) -> Failure:
    details = {"credential": "api key", "problem": problem}
    return Failure(grpc.StatusCode.UNAUTHENTICATED, "the api key was refused", "UNAUTHENTICATED", details)


@pytest.fixture
def tokens() -> Callable[[], str]:
    numbers = iter(range(1, 100))
    return lambda: f"t-{next(numbers)}"


def sent(server: FakeServer) -> list[object]:
    return [call.metadata["authorization"] for call in server.calls]


class TestWaiting:
    @pytest.mark.parametrize("reason", ["RATE_LIMITED", "OVERLOADED"])
    def test_the_wait_that_the_server_asks_for_is_kept(self, client: Client, server: FakeServer, reason: str) -> None:
        server.add(KEY, URL)
        server.fail("Resolve", busy(0.2, reason), busy(0.1, reason))
        start = time.monotonic()
        assert client.resolve(KEY).url == URL
        assert time.monotonic() - start >= 0.3
        assert len(server.calls) == 3

    async def test_by_the_asyncio_client_too(self, async_client: AsyncClient, server: FakeServer) -> None:
        server.add(KEY, URL)
        server.fail("Resolve", busy(0.2))
        start = time.monotonic()
        assert (await async_client.resolve(KEY)).url == URL
        assert time.monotonic() - start >= 0.2

    def test_a_mutation_keeps_its_request_id(self, client: Client, server: FakeServer) -> None:
        server.fail("Create", busy(0.01), busy(0.01))
        assert client.create(KEY, URL).revision == 1
        assert len({call.request.request_id for call in server.calls}) == 1

    def test_it_ends_after_as_many_attempts_as_any_call(self, client: Client, server: FakeServer) -> None:
        server.fail("Get", *[busy(0.01)] * 10)
        with pytest.raises(ResourceExhausted) as caught:
            client.get(KEY)
        assert len(server.calls) == 4
        assert isinstance(caught.value.__cause__, grpc.RpcError)

    def test_a_wait_beyond_the_deadline_is_not_begun(self, client: Client, server: FakeServer) -> None:
        server.fail("Get", busy(60))
        with pytest.raises(ResourceExhausted) as caught:
            client.get(KEY, timeout=5)
        assert len(server.calls) == 1
        assert caught.value.retry_delay is not None

    def test_the_deadline_bounds_all_attempts_together(self, client: Client, server: FakeServer) -> None:
        server.add(KEY, URL)
        server.fail("Get", busy(0.5))
        client.get(KEY, timeout=3)
        assert server.calls[1].seconds_left < server.calls[0].seconds_left

    def test_one_attempt_is_one(self, server: FakeServer) -> None:
        server.fail("Get", busy(0.01))
        with Client(server.target, max_attempts=1) as client, pytest.raises(ResourceExhausted):
            client.get(KEY)
        assert len(server.calls) == 1

    def test_who_does_not_say_when_is_not_asked_again(self, client: Client, server: FakeServer) -> None:
        server.fail("Get", busy(None, "RATE_LIMITED"))
        with pytest.raises(ResourceExhausted):
            client.get(KEY)
        assert len(server.calls) == 1


class TestExpiredTokens:
    def test_a_newer_one_is_tried_once(self, server: FakeServer, tokens: Callable[[], str]) -> None:
        server.add(KEY, URL)
        server.fail("Resolve", EXPIRED)
        with Client(server.target, token=tokens) as client:
            assert client.resolve(KEY).url == URL
        assert sent(server) == ["Bearer t-1", "Bearer t-2"]

    def test_and_not_a_second_time(self, server: FakeServer, tokens: Callable[[], str]) -> None:
        server.fail("Get", *[EXPIRED] * 5)
        with Client(server.target, token=tokens) as client, pytest.raises(Unauthenticated):
            client.get(KEY)
        assert len(server.calls) == 2

    def test_a_mutation_too_under_the_same_request_id(self, server: FakeServer, tokens: Callable[[], str]) -> None:
        server.fail("Create", EXPIRED)
        with Client(server.target, token=tokens) as client:
            client.create(KEY, URL)
        assert len({call.request.request_id for call in server.calls}) == 1

    async def test_by_the_asyncio_client_too(self, server: FakeServer, tokens: Callable[[], str]) -> None:
        async def token() -> str:
            return tokens()

        server.add(KEY, URL)
        server.fail("Resolve", EXPIRED)
        async with AsyncClient(server.target, token=token) as client:
            assert (await client.resolve(KEY)).url == URL
        assert sent(server) == ["Bearer t-1", "Bearer t-2"]

    def test_a_file_is_read_once_more_even_if_it_looks_the_same(self, server: FakeServer, tmp_path: Path) -> None:
        path = tmp_path / "token"
        path.write_text("old\n")
        status = path.stat()
        server.add(KEY, URL)
        with Client(server.target, token_file=path) as client:
            client.get(KEY)
            server.fail("Get", EXPIRED)
            path.write_text("new\n")
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
            client.get(KEY)
        assert sent(server) == ["Bearer old", "Bearer old", "Bearer new"]

    def test_the_same_token_is_not_sent_again(self, server: FakeServer) -> None:
        server.fail("Get", EXPIRED)
        with Client(server.target, token="s3cret") as client, pytest.raises(Unauthenticated) as caught:
            client.get(KEY)
        assert len(server.calls) == 1
        assert "s3cret" not in f"{caught.value!r} {caught.value} {caught.value.__cause__!r} {client!r}"
        assert (caught.value.credential, caught.value.problem) == ("bearer token", "expired")
        assert isinstance(caught.value.__cause__, grpc.RpcError)

    @pytest.mark.parametrize("problem", ["signature", "revoked", "missing", "unknown key"])
    def test_another_problem_is_told_at_once(self, server: FakeServer, tokens: Callable[[], str], problem: str) -> None:
        server.fail("Get", refused(problem))
        with Client(server.target, token=tokens) as client, pytest.raises(Unauthenticated) as caught:
            client.get(KEY)
        assert len(server.calls) == 1
        assert (caught.value.credential, caught.value.problem) == ("api key", problem)

    def test_one_attempt_is_one(self, server: FakeServer, tokens: Callable[[], str]) -> None:
        server.fail("Get", EXPIRED)
        with Client(server.target, token=tokens, max_attempts=1) as client, pytest.raises(Unauthenticated):
            client.get(KEY)
        assert len(server.calls) == 1


class TestTokens:
    def test_a_function_that_takes_all_of_the_time_ends_the_call(self, server: FakeServer) -> None:
        def slow() -> str:
            time.sleep(0.05)
            return "t-1"

        with Client(server.target, token=slow) as client, pytest.raises(DeadlineExceeded, match="token"):
            client.get(KEY, timeout=0.01)
        assert server.calls == []

    async def test_an_asynchronous_one_too(self, server: FakeServer) -> None:
        async def stuck() -> str:
            while True:
                await asyncio.Event().wait()

        async with AsyncClient(server.target, token=stuck) as client:
            with pytest.raises(DeadlineExceeded, match="token"):
                await client.get(KEY, timeout=0.01)
        assert server.calls == []

    def test_what_the_caller_lacks_is_told(self, client: Client, server: FakeServer) -> None:
        details = {"permission": "routes.write", "tenant": "team-a", "env": "prod"}
        server.fail("Get", Failure(grpc.StatusCode.PERMISSION_DENIED, "not permitted", "FORBIDDEN", details))
        with pytest.raises(PermissionDenied) as caught:
            client.get(KEY)
        assert caught.value.permission == "routes.write"
