"""ops.http_server: HTTP/1.1 with an end to every connection."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pointsman_server.ops import http_server
from pointsman_server.ops.http_server import HttpServer

LARGE = bytes(32 << 20)
BODY = "größe\n".encode()


async def here(_request: Request) -> Response:
    return Response(BODY, media_type="text/plain")


async def large(_request: Request) -> Response:
    return Response(LARGE)


async def broken(_request: Request) -> Response:
    raise RuntimeError("canary")


def application() -> Starlette:
    return Starlette(routes=[Route("/here", here), Route("/large", large), Route("/broken", broken)])


@pytest.fixture
async def port() -> AsyncIterator[int]:
    served = HttpServer(application())
    yield await served.start("127.0.0.1", 0, share=False)
    await served.stop()


async def sent(port: int, data: bytes) -> bytes:
    """Send ``data``, and return everything that comes until the server closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        await writer.drain()
        return await asyncio.wait_for(reader.read(), 10)
    except (ConnectionResetError, BrokenPipeError):
        return b""
    finally:
        writer.close()


async def asked(port: int, line: str) -> tuple[str, dict[str, str], bytes]:
    """Send a request, and return the first line of the response, its fields, and its body."""
    head, _, body = (await sent(port, f"{line}\r\nHost: localhost\r\n\r\n".encode())).partition(b"\r\n\r\n")
    first, *fields = head.decode().split("\r\n")
    return first, dict(field.lower().split(": ", 1) for field in fields), body


async def test_a_path_is_answered_and_the_connection_ends(port: int) -> None:
    first, fields, body = await asked(port, "GET /here HTTP/1.1")

    assert (first, body) == ("HTTP/1.1 200 OK", BODY)
    assert fields["content-length"] == str(len(BODY))
    assert fields["content-type"] == "text/plain; charset=utf-8"
    assert fields["connection"] == "close"
    assert fields["date"].endswith(" gmt")
    assert "server" not in fields


@pytest.mark.parametrize(
    "line",
    [
        "GET /here",
        "GET /here SPDY/3",
        "GÉT /here HTTP/1.1",
        "",
    ],
)
async def test_a_malformed_request_is_refused(port: int, line: str) -> None:
    assert (await asked(port, line))[0].split()[1] == "400"


async def test_a_head_without_end_is_refused(port: int) -> None:
    # The connection is reset while the rest of the head is under way, so the status may be lost.
    response = await sent(port, b"GET /here HTTP/1.1\r\nX: " + b"x" * (4 << 20))

    assert response[:12] in {b"", b"HTTP/1.1 400"}


async def test_an_exception_is_logged_and_its_text_stays_inside(port: int, caplog: pytest.LogCaptureFixture) -> None:
    first, _, body = await asked(port, "GET /broken HTTP/1.1")

    assert (first, b"canary" in body) == ("HTTP/1.1 500 Internal Server Error", False)
    assert "canary" in caplog.text


async def test_a_silent_connection_is_closed(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "CONNECTION_SECONDS", 0.05)
    assert await sent(port, b"GET /here HTT") == b""


async def test_a_large_response_arrives_whole(port: int) -> None:
    assert (await asked(port, "GET /large HTTP/1.1"))[2] == LARGE


async def test_a_client_that_does_not_read_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "CONNECTION_SECONDS", 0.2)
    served = HttpServer(application())
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", await served.start("127.0.0.1", 0, share=False), limit=1
    )
    writer.write(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
    connections = served._server.server_state.connections
    while not connections:  # noqa: ASYNC110 - uvicorn tells nobody of its connections
        await asyncio.sleep(0.01)
    while connections:  # noqa: ASYNC110
        await asyncio.sleep(0.01)

    assert len(await asyncio.wait_for(reader.read(), 10)) < len(LARGE)
    writer.close()
    await served.stop()


async def test_connections_are_bounded_in_number(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "MAX_CONNECTIONS", 1)
    _, waiting = await asyncio.open_connection("127.0.0.1", port)

    assert await sent(port, b"GET /here HTTP/1.1\r\nHost: localhost\r\n\r\n") == b""
    waiting.close()


async def test_a_client_that_leaves_early_disturbs_no_other(port: int) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /he")
    writer.close()
    await writer.wait_closed()

    assert (await asked(port, "GET /here HTTP/1.1"))[2] == BODY


async def test_stopping_closes_idle_connections_and_the_port() -> None:
    served = HttpServer(application())
    at = await served.start("127.0.0.1", 0, share=False)
    reader, writer = await asyncio.open_connection("127.0.0.1", at)
    await asked(at, "GET /here HTTP/1.1")
    await served.stop()

    assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", at)


async def test_the_signals_of_the_process_are_left_alone() -> None:
    import signal

    before = signal.getsignal(signal.SIGTERM)
    served = HttpServer(application())
    await served.start("127.0.0.1", 0, share=False)
    during = signal.getsignal(signal.SIGTERM)
    await served.stop()

    assert during is before


async def test_every_address_of_a_host_gets_the_same_port(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()

    async def both(*_args: object, **_kwargs: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in ("127.0.0.1", "127.0.0.2")]

    monkeypatch.setattr(loop, "getaddrinfo", both)
    served = HttpServer(application())
    port = await served.start("localhost", 0, share=False)
    monkeypatch.undo()

    for address in ("127.0.0.1", "127.0.0.2"):
        _, writer = await asyncio.open_connection(address, port)
        assert writer.get_extra_info("peername") == (address, port)
        writer.close()
    await served.stop()


async def test_a_port_that_is_taken_is_an_error(port: int) -> None:
    with pytest.raises(OSError, match="in use"):
        await HttpServer(application()).start("127.0.0.1", port, share=False)


async def test_workers_share_a_port() -> None:
    first, second = HttpServer(application()), HttpServer(application())
    port = await first.start("127.0.0.1", 0, share=True)

    assert await second.start("127.0.0.1", port, share=True) == port
    await first.stop()
    await second.stop()


async def test_a_server_that_never_started_can_be_stopped() -> None:
    served = HttpServer(application())
    await served.stop()
    assert await served.start("127.0.0.1", 0, share=False) > 0
    await served.stop()
