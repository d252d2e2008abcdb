"""http_port: a few answers by HTTP, and nothing that anybody can hold on to."""

import asyncio
from collections.abc import AsyncIterator
from http import HTTPStatus

import pytest

from pointsman_server.ops import http_server
from pointsman_server.ops.http_server import Answer, HttpPort

LARGE = bytes(32 << 20)
BODY = "größe\n".encode()


def broken() -> Answer:
    raise RuntimeError("canary")


@pytest.fixture
async def port() -> AsyncIterator[int]:
    served = HttpPort(
        {
            "/here": lambda: Answer(BODY, "text/plain; charset=utf-8"),
            "/down": lambda: Answer(b"{}", "application/json", HTTPStatus.SERVICE_UNAVAILABLE),
            "/broken": broken,
            "/large": lambda: Answer(LARGE, "text/plain"),
        }
    )
    yield await served.start("127.0.0.1", 0, share=False)
    await served.stop()


async def sent(port: int, data: bytes) -> bytes:
    """Send ``data``, and return all that comes until the other side closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        await writer.drain()
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()


async def asked(port: int, line: str) -> tuple[str, dict[str, str], bytes]:
    """Send a request, and return the first line of the response, its fields, and its body."""
    head, _, body = (await sent(port, f"{line}\r\nHost: localhost\r\n\r\n".encode())).partition(b"\r\n\r\n")
    first, *fields = head.decode().split("\r\n")
    return first, dict(field.split(": ", 1) for field in fields), body


async def test_a_path_is_answered_and_the_connection_ends(port: int) -> None:
    first, fields, body = await asked(port, "GET /here HTTP/1.1")

    assert (first, body) == ("HTTP/1.1 200 OK", BODY)
    assert fields["Content-Length"] == str(len(BODY))
    assert fields["Content-Type"] == "text/plain; charset=utf-8"
    assert fields["Connection"] == "close"
    assert fields["Date"].endswith(" GMT")


@pytest.mark.parametrize("target", ["/here?a=b", "http://localhost:9090/here"])
async def test_a_query_or_a_whole_url_names_the_same(port: int, target: str) -> None:
    assert (await asked(port, f"GET {target} HTTP/1.1"))[2] == BODY


async def test_head_is_the_same_without_the_body(port: int) -> None:
    first, fields, body = await asked(port, "HEAD /here HTTP/1.1")

    assert (first, fields["Content-Length"], body) == ("HTTP/1.1 200 OK", str(len(BODY)), b"")


async def test_an_answer_says_its_own_status(port: int) -> None:
    assert (await asked(port, "GET /down HTTP/1.0"))[0] == "HTTP/1.1 503 Service Unavailable"


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("GET /elsewhere HTTP/1.1", 404),
        ("DELETE /elsewhere HTTP/1.1", 404),
        ("POST /here HTTP/1.1", 405),
        ("GET /here HTTP/2.0", 505),
        ("GET /here", 400),
        ("GET /here SPDY/3", 400),
        ("GET http://[ HTTP/1.1", 400),
        ("GÉT /here HTTP/1.1", 400),
        ("", 400),
        ("GET /here HTTP/1.1\r\nX: " + "x" * http_server.MOST_HEAD_BYTES, 431),
    ],
)
async def test_what_is_no_good_is_refused(port: int, line: str, status: int) -> None:
    assert int((await asked(port, line))[0].split()[1]) == status


async def test_a_refused_method_is_told_which_are_allowed(port: int) -> None:
    assert (await asked(port, "PUT /here HTTP/1.1"))[1]["Allow"] == "GET, HEAD"


async def test_an_error_of_ours_is_told_to_nobody_outside(port: int) -> None:
    first, _, body = await asked(port, "GET /broken HTTP/1.1")

    assert (first, b"canary" in body) == ("HTTP/1.1 500 Internal Server Error", False)


async def test_who_says_nothing_in_time_is_let_go(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "READ_SECONDS", 0.05)
    assert await sent(port, b"GET /here HTT") == b""


async def test_a_large_answer_comes_as_a_whole(port: int) -> None:
    assert (await asked(port, "GET /large HTTP/1.1"))[2] == LARGE


async def test_who_does_not_read_is_let_go(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "SEND_SECONDS", 0.05)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /large HTTP/1.1\r\n\r\n")
    await reader.readexactly(1)
    while len(asyncio.all_tasks()) > 1:  # noqa: ASYNC110 - nobody tells when a connection has ended
        await asyncio.sleep(0.01)

    assert len(await asyncio.wait_for(reader.read(), 10)) < len(LARGE)
    writer.close()


async def test_there_are_only_so_many_connections(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "MOST_CONNECTIONS", 1)
    _, waiting = await asyncio.open_connection("127.0.0.1", port)

    assert await sent(port, b"") == b""
    waiting.close()


async def test_a_connection_that_is_closed_early_harms_nobody(port: int) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /he")
    writer.close()
    await writer.wait_closed()

    assert (await asked(port, "GET /here HTTP/1.1"))[2] == BODY


async def test_stopping_ends_what_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "STOP_SECONDS", 0.05)
    served = HttpPort({})
    at = await served.start("127.0.0.1", 0, share=False)
    reader, writer = await asyncio.open_connection("127.0.0.1", at)
    await asyncio.sleep(0)
    await served.stop()

    assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", at)


async def test_one_that_never_started_can_be_stopped() -> None:
    await HttpPort({}).stop()
