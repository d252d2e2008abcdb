"""A stream passes every stage that a unary call passes: a test service of each kind, on each transport."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import grpc
import pytest
import structlog

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_pb2 import RouteKey
from pointsman_server.auth.authenticator import Authenticator, limit_of_failures
from pointsman_server.auth.permissions import Permissions, Policy
from pointsman_server.domain.errors import RouteNotFound
from pointsman_server.domain.grants import parse_grant
from pointsman_server.domain.identity import Credential, Identity, Permission
from pointsman_server.rpc import SERVICE, web
from pointsman_server.rpc.call import current_call
from pointsman_server.rpc.interceptors import method_permissions
from pointsman_server.rpc.interceptors.admission import Admission
from pointsman_server.rpc.interceptors.authentication import authenticate
from pointsman_server.rpc.interceptors.chain import stages
from pointsman_server.rpc.interceptors.grpc_interceptor import Interceptor
from pointsman_server.rpc.interceptors.rate_limiting import Throttling
from pointsman_server.rpc.transport.asgi.application import AsgiServer
from pointsman_server.rpc.transport.grpcio import make_server
from pointsman_server.rpc.transport.limits import CallLimits, Connections
from pointsman_server.runtime.rate_limiter import Limiter, Limits, Rate
from pointsman_server.telemetry.metrics import Metrics
from tests.support.envoy import envoy_before
from tests.support.refusals import Refusal, read
from tests.support.servers import settings

KEY = RouteKey(tenant="team-a", service="payments", env="prod", version="v1")
OF_OTHERS = RouteKey(tenant="team-b", service="payments", env="prod", version="v1")
REQUEST = pb.GetRequest(key=KEY)
# Of each kind: its name, and its type in the metrics.
TYPES = {"Watch": "server_stream", "Sync": "bidi_stream", "Collect": "client_stream"}
RESPONSES = ["Watch", "Sync"]
REQUESTS = ["Sync", "Collect"]


class Streams:
    """A service with one stream of each kind. ``work`` is done after three messages, or after each request."""

    def __init__(self) -> None:
        self.actors: list[str] = []
        self.work: Any = _nothing

    async def watch(self, _request: Any, _context: Any) -> AsyncIterator[pb.GetResponse]:
        self.actors.append(current_call().actor)
        for _ in range(3):
            yield pb.GetResponse()
        await self.work()

    async def sync(self, requests: AsyncIterator[Any], _context: Any) -> AsyncIterator[pb.GetResponse]:
        self.actors.append(current_call().actor)
        async for _ in requests:
            yield pb.GetResponse()
            await self.work()

    async def collect(self, requests: AsyncIterator[Any], _context: Any) -> pb.GetResponse:
        self.actors.append(current_call().actor)
        async for _ in requests:
            await self.work()
        return pb.GetResponse()

    def handlers(self) -> dict[str, Any]:
        coders = (pb.GetRequest.FromString, pb.GetResponse.SerializeToString)
        return {
            "Watch": grpc.unary_stream_rpc_method_handler(self.watch, *coders),
            "Sync": grpc.stream_stream_rpc_method_handler(self.sync, *coders),
            "Collect": grpc.stream_unary_rpc_method_handler(self.collect, *coders),
        }


async def _nothing() -> None:
    pass


async def _for_ever() -> None:
    await asyncio.Event().wait()


class Served:
    """The service behind the chain, and a client of it."""

    def __init__(self, streams: Streams, metrics: Metrics, admission: Admission, channel: grpc.aio.Channel) -> None:
        self.streams, self.metrics, self.admission, self.channel = streams, metrics, admission, channel

    async def call(self, method: str, *requests: Any, metadata: Any = ()) -> list[Any]:
        """Make a whole call; returns its responses."""
        async with aclosing(self.responses(method, *requests, metadata=metadata)) as responses:
            return [response async for response in responses]

    async def responses(self, method: str, *requests: Any, metadata: Any = ()) -> AsyncIterator[Any]:
        """Make a call; a stream of requests has those given."""
        path, encode = f"/{SERVICE}/{method}", _encode
        sent = [*requests] or [REQUEST]
        options: dict[str, Any] = {"metadata": metadata, "timeout": 60}
        if method == "Watch":
            call: Any = self.channel.unary_stream(path, encode, pb.GetResponse.FromString)(sent[0], **options)
        elif method == "Sync":
            call = self.channel.stream_stream(path, encode, pb.GetResponse.FromString)(iter(sent), **options)
        else:
            yield await self.channel.stream_unary(path, encode, pb.GetResponse.FromString)(iter(sent), **options)
            return
        try:
            async for response in call:
                yield response
        finally:
            call.cancel()

    async def refused(self, method: str, *requests: Any, metadata: Any = ()) -> Refusal:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.call(method, *requests, metadata=metadata)
        return read(caught.value)

    def count(self, name: str, method: str, **labels: str) -> float:
        known = {"grpc_type": TYPES[method], "grpc_service": SERVICE, "grpc_method": method}
        return self.metrics.registry.get_sample_value(name, known | labels) or 0.0


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110 - on what the server counts
            await asyncio.sleep(0.001)


def _encode(message: Any) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()


@pytest.fixture(params=["grpcio", "envoy"])
def transport_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@asynccontextmanager
async def listening(transport: str, interceptor: Interceptor, streams: Streams) -> AsyncIterator[int]:
    """Serve the test service; give its port."""
    if transport == "envoy":
        application = AsgiServer(
            interceptor, message_bytes=1 << 20, metadata_bytes=16 << 10, patience=5, others=web.application()
        )
        application.add_registered_method_handlers(SERVICE, streams.handlers())
        async with envoy_before(application, settings(transport=transport)) as (port, *_):
            yield port
        return
    server = make_server(interceptor, CallLimits(), share_port=False, connections=Connections())
    server.add_registered_method_handlers(SERVICE, streams.handlers())
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, streams.handlers()),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


@pytest.fixture
def serve(transport_name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Serve the test service behind the chain, with the options of ``stages``."""
    need = method_permissions.Need(Permission.READ, method_permissions.METHODS["Get"].scopes)
    for method in TYPES:
        monkeypatch.setitem(method_permissions.METHODS, method, need)  # type: ignore[arg-type]

    @asynccontextmanager
    async def served(**options: Any) -> AsyncIterator[Served]:
        metrics, streams = Metrics(), Streams()
        admission = options.pop("admission", None) or Admission()
        options = {"deadline": 60, "access_log_sample": 0} | options
        order = stages(metrics, admission, **options)
        async with listening(transport_name, Interceptor(order), streams) as port:
            no_retries = [("grpc.enable_retries", 0)]
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=no_retries) as channel:
                yield Served(streams, metrics, admission, channel)

    return served


@pytest.mark.parametrize(("method", "received", "sent"), [("Watch", 1, 3), ("Sync", 4, 4), ("Collect", 4, 1)])
async def test_metrics_count_each_message_by_the_type_of_the_call(serve: Any, method: str, received: int, sent: int):
    async with serve() as served:
        await served.call(method, *[REQUEST] * 4)

        await until(lambda: served.count("grpc_server_handled_total", method, grpc_code="OK") == 1)
        assert served.count("grpc_server_started_total", method) == 1
        assert served.count("grpc_server_msg_received_total", method) == received
        assert served.count("grpc_server_msg_sent_total", method) == sent
        assert served.count("grpc_server_handling_seconds_count", method) == 1


@pytest.mark.parametrize("method", TYPES)
async def test_the_access_log_has_one_line_for_a_stream(serve: Any, method: str):
    with structlog.testing.capture_logs() as lines:
        async with serve(access_log_sample=1) as served:
            await served.call(method, *[REQUEST] * 3, metadata=[("x-request-id", "from-me")])

    assert [(line["method"], line["code"], line["request_id"]) for line in lines if line["event"] == "call"] == [
        (method, "OK", "from-me")
    ]


@pytest.mark.parametrize("method", TYPES)
async def test_an_error_of_the_domain_ends_a_stream_with_its_status(serve: Any, method: str):
    async def fail() -> None:
        raise RouteNotFound(str(KEY), 7, "epoch")

    async with serve() as served:
        served.streams.work = fail
        refusal = await served.refused(method, metadata=[("x-request-id", "from-me")])

        assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "ROUTE_NOT_FOUND")
        assert refusal.trailers["x-request-id"] == "from-me"
        # A call is counted when it is over, which may be just after its caller has the status.
        await until(lambda: served.count("grpc_server_handled_total", method, grpc_code="NotFound") == 1)


@pytest.mark.parametrize("method", TYPES)
async def test_a_bug_in_a_stream_shows_nothing_of_its_cause(serve: Any, method: str):
    async def fail() -> None:
        raise RuntimeError("canary: the cause")

    async with serve() as served:
        served.streams.work = fail
        refusal = await served.refused(method)

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert "canary" not in str(refusal)


async def test_the_default_deadline_ends_a_stream_of_requests(serve: Any):
    async with serve(deadline=0.05) as served:
        served.streams.work = _for_ever
        no_timeout = served.channel.stream_unary(f"/{SERVICE}/Collect", _encode, pb.GetResponse.FromString)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await no_timeout(iter([REQUEST]))

    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("method", RESPONSES)
async def test_a_stream_of_responses_may_last_longer_than_the_default_deadline(serve: Any, method: str):
    async def wait() -> None:
        await asyncio.sleep(0.1)

    async with serve(deadline=0.01) as served:
        served.streams.work = wait
        path = f"/{SERVICE}/{method}"
        if method == "Watch":
            call: Any = served.channel.unary_stream(path, _encode, pb.GetResponse.FromString)(REQUEST)
        else:
            call = served.channel.stream_stream(path, _encode, pb.GetResponse.FromString)(iter([REQUEST]))
        async for _ in call:
            pass

        assert await call.code() is grpc.StatusCode.OK


@asynccontextmanager
async def open_streams(served: Served, method: str, number: int) -> AsyncIterator[list["asyncio.Task[Refusal]"]]:
    """Open streams that never end by themselves; each task returns how its stream was refused."""
    working: list[None] = []

    async def work() -> None:
        working.append(None)
        await _for_ever()

    served.streams.work = work
    tasks = [asyncio.create_task(served.refused(method)) for _ in range(number)]
    try:
        await until(lambda: len(working) == number)
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("method", TYPES)
async def test_streams_beyond_the_limit_are_refused(serve: Any, method: str):
    admission = Admission(2)
    async with serve(admission=admission) as served, open_streams(served, method, 2):
        refusal = await served.refused(method)

        assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
        assert refusal.metadata == {"limit": "concurrent_streams"}
        # Open streams take no place of unary calls.
        admission.enter()
        admission.check()
        admission.leave()


@pytest.mark.parametrize("method", TYPES)
async def test_a_drain_ends_streams_and_refuses_new_ones(serve: Any, method: str):
    async with serve() as served, open_streams(served, method, 3) as tasks:
        begun = asyncio.get_running_loop().time()
        await served.admission.close(30)
        ended = await asyncio.gather(*tasks)

        assert {(refusal.code, refusal.reason) for refusal in ended} == {(grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")}
        assert asyncio.get_running_loop().time() - begun < 20
        assert (await served.refused(method)).reason == "SHUTTING_DOWN"


GOOD = [("authorization", "Bearer good")]


class Verifier:
    """Accepts one bearer credential, of a reader of team-a."""

    version = 1

    async def verify(self, credential: str) -> Identity:
        assert credential == "good"
        return Identity("jwt:me", Credential.BEARER_TOKEN, (parse_grant("reader:team-a"),))


@pytest.fixture
def access() -> dict[str, Any]:
    authenticator = Authenticator(tokens=Verifier(), failures=limit_of_failures(20))
    return {"access": (authenticate(authenticator),), "permissions": Permissions(Policy)}


@pytest.mark.parametrize("method", TYPES)
async def test_a_stream_begins_only_for_an_authenticated_caller(serve: Any, access: Any, method: str):
    async with serve(**access) as served:
        refusal = await served.refused(method)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
        assert served.streams.actors == []

        await served.call(method, metadata=GOOD)
        assert served.streams.actors == ["jwt:me"]


@pytest.mark.parametrize("method", TYPES)
async def test_each_request_of_a_stream_needs_permission(serve: Any, access: Any, method: str):
    async with serve(**access) as served:
        permitted = [REQUEST, REQUEST] if method in REQUESTS else []
        refusal = await served.refused(method, *permitted, pb.GetRequest(key=OF_OTHERS), metadata=GOOD)

        assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "FORBIDDEN")
        assert refusal.metadata["tenant"] == "team-b"


@pytest.mark.parametrize("method", TYPES)
async def test_a_stream_that_is_not_listed_is_denied(serve: Any, access: Any, method: str, monkeypatch: Any):
    monkeypatch.delitem(method_permissions.METHODS, method)
    async with serve(**access) as served:
        assert (await served.refused(method, metadata=GOOD)).reason == "FORBIDDEN"
        assert served.streams.actors == []


def limiter(name: str) -> Limiter:
    # Three at once, and by the hour: nothing comes back while a test runs.
    return Limiter(name, Rate(3 / 3600, 3600))


@pytest.mark.parametrize("scope", ["identity", "tenant"])
@pytest.mark.parametrize("method", TYPES)
async def test_each_request_of_a_stream_counts_against_the_rates(serve: Any, method: str, scope: str):
    limited: list[str] = []
    limits = Limits(**{scope: limiter(f"{scope}.reads")})
    throttling = Throttling(limits, Limits(), None, limited.append)
    async with serve(throttling=throttling) as served:
        if method in REQUESTS:
            await served.call(method, REQUEST, REQUEST, REQUEST)
            refusal = await served.refused(method, REQUEST)
        else:
            for _ in range(3):
                await served.call(method)
            refusal = await served.refused(method)

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")
    assert limited == [f"{scope}.reads"]


@pytest.mark.parametrize("method", TYPES)
async def test_each_request_of_a_stream_is_validated(serve: Any, method: str):
    async with serve() as served:
        valid = [REQUEST, REQUEST] if method in REQUESTS else []
        refusal = await served.refused(method, *valid, pb.GetRequest(key=RouteKey(tenant="-")))

        assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
        assert "key.tenant" in refusal.fields


@pytest.mark.parametrize("method", TYPES)
async def test_a_request_of_a_stream_that_cannot_be_parsed_is_refused_by_us(serve: Any, method: str):
    async with serve() as served:
        refusal = await served.refused(method, b"\xff\xff")

        assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")


@pytest.mark.parametrize("method", TYPES)
async def test_a_client_that_leaves_ends_the_stream(serve: Any, method: str):
    async with serve() as served:
        async with open_streams(served, method, 1):
            pass
        await until(lambda: served.count("grpc_server_handled_total", method, grpc_code="Cancelled") == 1)
