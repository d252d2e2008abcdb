"""The order of the chain: what each stage sees or prevents because of its place."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from typing import Any, cast

import grpc
import pytest
from structlog.testing import capture_logs

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_pb2 import RouteKey
from pointsman_server.auth.permissions import Permissions, Policy
from pointsman_server.domain.access_errors import Unauthenticated
from pointsman_server.domain.grants import parse_grant
from pointsman_server.domain.identity import ANONYMOUS, Credential, Identity
from pointsman_server.rpc import SERVICE
from pointsman_server.rpc.call import begin_call, current_call
from pointsman_server.rpc.interceptors.admission import Admission
from pointsman_server.rpc.interceptors.bulk_limit import Bulk
from pointsman_server.rpc.interceptors.chain import identify, stages, stream_through, through
from pointsman_server.rpc.interceptors.rate_limiting import Throttling
from pointsman_server.rpc.interceptors.stage import CallHandler, Method
from pointsman_server.runtime.rate_limiter import Limiter, Limits, Rate
from pointsman_server.telemetry.metrics import Metrics
from tests.support.call_context import CallContext

READER = Identity("key:ci", Credential.API_KEY, (parse_grant("reader:a"),))
RESOLVE = {"grpc_type": "unary", "grpc_service": SERVICE, "grpc_method": "Resolve"}


def limiter(name: str, burst: int) -> Limiter:
    # By the hour: nothing comes back while a test runs.
    return Limiter(name, Rate(burst / 3600, 3600))


def key(tenant: str) -> RouteKey:
    return RouteKey(tenant=tenant, service="s", env="prod", version="v1")


def resolve(tenant: str = "a") -> pb.ResolveRequest:
    return pb.ResolveRequest(key=key(tenant))


class Chain:
    """The whole chain around a handler that counts its calls; each caller and each tenant has ``burst`` calls."""

    def __init__(self, *, burst: int = 100, deadline: float = 30.0, bulk: int = 100, sample: float = 0.0) -> None:
        self.metrics = Metrics()
        self.admission = Admission()
        self.identity: Identity | Exception = READER
        self.authenticated = 0
        self.handled = 0
        self.before_identity = asyncio.Event()
        self.before_identity.set()
        policy = Policy()
        limits = Limits(limiter("identity", burst), limiter("tenant", burst))
        self._stages = stages(
            self.metrics,
            self.admission,
            access=(self._authenticate,),
            permissions=Permissions(lambda: policy),
            deadline=deadline,
            access_log_sample=sample,
            throttling=Throttling(limits, limits, None, lambda _name: None),
            bulk=Bulk(most=bulk),
        )

    def _authenticate(self, _method: Method, proceed: CallHandler) -> CallHandler:
        async def handle(request: Any, context: Any) -> Any:
            self.authenticated += 1
            await self.before_identity.wait()
            if isinstance(self.identity, Exception):
                raise self.identity
            current_call().identity = self.identity
            return await proceed(request, context)

        return handle

    async def _work(self, request: Any, _context: Any) -> Any:
        self.handled += 1
        return request

    async def call(
        self, request: Any, name: str = "Resolve", *, remaining: float | None = 60.0
    ) -> tuple[str, CallContext]:
        """Make a call; return the name of its status code, and its context."""
        context = CallContext(("x-request-id", "mine"), remaining=remaining)
        try:
            await through(self._stages, Method(SERVICE, name), self._work)(request, cast("Any", context))
        except grpc.aio.AbortError:
            assert context.status is not None
            return context.status[0].name, context
        return "OK", context

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)


async def test_a_call_that_nothing_refuses_is_handled() -> None:
    chain = Chain()

    assert (await chain.call(resolve()))[0] == "OK"
    assert chain.handled == 1


async def test_refusals_are_counted_and_logged_with_the_code_and_request_id_that_the_caller_gets() -> None:
    chain = Chain(sample=1.0)
    with capture_logs() as lines:
        code, context = await chain.call(resolve("b"))

    assert code == "PERMISSION_DENIED"
    assert chain.value("grpc_server_handled_total", **RESOLVE, grpc_code="PermissionDenied") == 1
    assert [(line["code"], line["request_id"]) for line in lines] == [("PERMISSION_DENIED", "mine")]
    assert context.trailers["x-request-id"] == "mine"


async def test_a_drain_waits_until_the_refusal_of_a_call_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = Chain()
    open_calls: list[int] = []

    async def abort(_context: CallContext, code: grpc.StatusCode, details: str) -> None:
        open_calls.append(chain.admission._open)
        _context.status = (code, details)
        raise grpc.aio.AbortError

    monkeypatch.setattr(CallContext, "abort", abort)
    await chain.call(resolve("b"))

    assert (open_calls, chain.admission._open) == ([1], 0)


async def test_a_draining_server_does_not_authenticate() -> None:
    chain = Chain()
    await chain.admission.close(0)

    assert (await chain.call(resolve()))[0] == "UNAVAILABLE"
    assert chain.authenticated == 0


async def test_the_default_deadline_covers_authentication() -> None:
    chain = Chain(deadline=0.01)
    chain.before_identity.clear()

    assert (await chain.call(resolve(), remaining=None))[0] == "DEADLINE_EXCEEDED"


async def test_a_call_without_an_identity_takes_nothing_of_a_rate() -> None:
    chain = Chain(burst=1)
    chain.identity = Unauthenticated("api key", "unknown", "unknown key")
    for _ in range(3):
        assert (await chain.call(resolve()))[0] == "UNAUTHENTICATED"
    chain.identity = READER

    assert (await chain.call(resolve()))[0] == "OK"


async def test_invalid_requests_count_against_the_rate_of_the_caller() -> None:
    chain = Chain(burst=2)

    codes = [(await chain.call(pb.ResolveRequest()))[0] for _ in range(3)]
    assert codes == ["INVALID_ARGUMENT", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"]


async def test_a_call_over_its_rate_takes_nothing_of_the_limit_of_large_calls() -> None:
    chain = Chain(burst=2, bulk=10)
    large = pb.BatchResolveRequest(keys=[key("a")] * 9)
    assert (await chain.call(large, "BatchResolve"))[0] == "OK"
    code, context = await chain.call(large, "BatchResolve")

    assert code == "RESOURCE_EXHAUSTED"
    assert b"RATE_LIMITED" in cast("bytes", context.trailers["grpc-status-details-bin"])


async def test_large_calls_are_bounded_before_they_are_validated() -> None:
    chain = Chain(bulk=10)
    invalid = pb.BatchResolveRequest(keys=[RouteKey()] * 9)
    assert (await chain.call(invalid, "BatchResolve"))[0] == "INVALID_ARGUMENT"
    # The first one counts until its response is sent.
    code, context = await chain.call(invalid, "BatchResolve")

    assert code == "RESOURCE_EXHAUSTED"
    assert b"OVERLOADED" in cast("bytes", context.trailers["grpc-status-details-bin"])


async def test_a_request_is_validated_before_its_keys_are_authorized() -> None:
    chain = Chain()
    request = resolve("b")
    request.min_revision = -1

    assert (await chain.call(request))[0] == "INVALID_ARGUMENT"


async def test_a_denied_call_does_not_use_up_the_rate_of_the_tenant() -> None:
    chain = Chain(burst=2)
    for _ in range(2):
        assert (await chain.call(resolve("b")))[0] == "PERMISSION_DENIED"
    chain.identity = Identity("key:of-b", Credential.API_KEY, (parse_grant("reader:b"),))

    assert (await chain.call(resolve("b")))[0] == "OK"
    assert chain.handled == 1


async def test_the_rate_of_a_tenant_holds_for_all_its_callers() -> None:
    chain = Chain(burst=2)
    codes = []
    for number in range(3):
        chain.identity = Identity(f"key:{number}", Credential.API_KEY, (parse_grant("reader:a"),))
        codes.append((await chain.call(resolve()))[0])

    assert codes == ["OK", "OK", "RESOURCE_EXHAUSTED"]


async def test_each_call_is_the_current_one_of_its_own_task() -> None:
    seen: list[str] = []

    async def see(_request: Any, _context: Any) -> None:
        await asyncio.sleep(0)
        seen.append(current_call().request_id)

    handler = identify(Method("a", "b"), see)
    contexts = [CallContext(("x-request-id", name)) for name in ("one", "two")]
    await asyncio.gather(*(handler(None, cast("Any", context)) for context in contexts))

    assert seen == ["one", "two"]


async def test_a_call_is_anonymous_until_it_is_authenticated() -> None:
    assert begin_call(cast("Any", CallContext())).identity is ANONYMOUS


async def test_the_first_stage_is_the_outermost() -> None:
    passed: list[str] = []

    def named(name: str) -> Any:
        def stage(_method: Method, proceed: CallHandler) -> CallHandler:
            async def handle(request: Any, context: Any) -> Any:
                passed.append(name)
                return await proceed(request, context)

            return handle

        return stage

    async def work(request: Any, _context: Any) -> Any:
        return request

    await through([named("first"), named("second")], Method("a", "b"), work)(None, cast("Any", CallContext()))
    assert passed == ["first", "second"]


async def test_responses_are_written_in_their_order_and_a_cancelled_generator_is_closed_at_once() -> None:
    closed: list[bool] = []
    written = asyncio.Event()

    async def count(_request: Any, context: Any) -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
            written.set()
            await asyncio.Event().wait()
        finally:
            closed.append(True)

    context = CallContext()
    handler = stream_through([], Method("a", "b", response_streaming=True), count)
    call = asyncio.ensure_future(handler(None, cast("Any", context)))
    async with asyncio.timeout(30):
        await written.wait()
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)

    assert (context.written, closed) == ([1, 2], [True])


async def test_an_ended_stream_is_free_at_once():
    """Without the collector: the functions of stages refer to the context, which refers to them."""
    contexts: list[weakref.ref[Any]] = []

    def stage(_method: Method, proceed: Any) -> Any:
        async def handle(request: Any, context: Any) -> Any:
            contexts.append(weakref.ref(context))
            context.sending.append(lambda: context and None)
            context.sent.append(lambda: context and None)
            return await proceed(request, context)

        return handle

    async def work(_request: Any, context: Any) -> None:
        await context.write("response")

    gc.disable()
    try:
        handler = stream_through([stage], Method("a", "b", response_streaming=True), work)
        await handler("request", cast("Any", CallContext()))
        assert [context() for context in contexts] == [None]
    finally:
        gc.enable()
