"""A call has a request id from its first stage on; where the transport does not, the stage sends it back."""

from typing import Any, cast

import pytest

from pointsman_server.rpc.call import current_call
from pointsman_server.rpc.interceptors.chain import stream_through, through
from pointsman_server.rpc.interceptors.stage import Method
from pointsman_server.rpc.interceptors.telemetry.identification import (
    begin_and_answer,
    identify,
    identify_and_answer,
)
from tests.support.call_context import CallContext

UNARY = Method("s", "m")
STREAM = Method("s", "m", response_streaming=True)


async def request_id(_request: Any, _context: Any) -> str:
    return current_call().request_id


@pytest.mark.parametrize("given", [(), (("x-request-id", "mine"),)])
async def test_the_answer_has_the_id_that_the_call_is_logged_by(given: Any) -> None:
    context = CallContext(*given)
    seen = await through([identify_and_answer], UNARY, request_id)(None, cast("Any", context))

    assert seen
    assert context.trailers == {"x-request-id": seen}
    assert seen == "mine" or not given


async def test_where_the_transport_answers_by_itself_nothing_is_sent() -> None:
    context = CallContext(("x-request-id", "mine"))

    assert await through([identify], UNARY, request_id)(None, cast("Any", context)) == "mine"
    assert context.trailers == context.initial == {}


async def test_the_fast_path_and_the_chain_name_a_call_alike() -> None:
    context = CallContext()
    begin_and_answer(cast("Any", context))
    seen = await through([identify_and_answer], UNARY, request_id)(None, cast("Any", context))

    assert context.trailers == {"x-request-id": seen}


async def test_two_calls_of_one_task_have_two_ids() -> None:
    first, second = CallContext(), CallContext()
    begin_and_answer(cast("Any", first))
    begin_and_answer(cast("Any", second))

    assert first.trailers != second.trailers


async def test_a_stream_names_the_call_before_its_first_response_and_not_before() -> None:
    context = CallContext(("x-request-id", "mine"))
    before: list[dict[str, Any]] = []

    async def responses(_request: Any, stream: Any) -> None:
        before.append(context.initial)
        await stream.write("one")
        await stream.write("two")

    await stream_through([identify_and_answer], STREAM, responses)(None, cast("Any", context))
    assert before == [{}]
    assert context.initial == {"x-request-id": "mine"}
    assert context.written == ["one", "two"]
