"""rpc.transport.envoy.admin: Envoy is asked where it listens, once it does."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from pointsman_server.rpc.transport.envoy.admin import Admin

LISTENERS = {"listener_statuses": [{"local_address": {"socket_address": {"address": "127.0.0.1", "port_value": 4711}}}]}


@asynccontextmanager
async def envoy(socket: Path, ready: list[bool], unwritten: list[dict[str, int]] | None = None) -> AsyncIterator[None]:
    """Stand for Envoy's administration: it is ready when the next of ``ready`` says so, and has ``unwritten``."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1].decode()
        up = ready.pop(0) if path == "/ready" else True
        body = json.dumps(LISTENERS) if path.startswith("/listeners") else ""
        if path.startswith("/stats?") and unwritten:
            gauges = [{"name": name, "value": value} for name, value in unwritten.pop(0).items()]
            body = json.dumps({"stats": [*gauges, {"histograms": {}}]})
        status = "200 OK" if up else "503 Service Unavailable"
        writer.write(f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n{body}".encode())
        writer.close()

    server = await asyncio.start_unix_server(serve, socket)
    try:
        yield
    finally:
        server.close()


async def test_the_port_is_given_once_envoy_takes_connections(tmp_path: Path) -> None:
    ready = [False, False, True]
    async with envoy(tmp_path / "admin.sock", ready), Admin(tmp_path / "admin.sock") as admin:
        assert await admin.listening() == 4711
    assert ready == []


async def test_it_waits_for_an_administration_that_is_not_up_yet(tmp_path: Path) -> None:
    async with Admin(tmp_path / "admin.sock") as admin:
        asked = asyncio.create_task(admin.listening())
        await asyncio.sleep(0)
        async with envoy(tmp_path / "admin.sock", [True]):
            assert await asyncio.wait_for(asked, 30) == 4711


async def test_it_is_flushed_when_no_request_is_open_and_no_byte_waits(tmp_path: Path) -> None:
    requests, waiting = "http.grpc.downstream_rq_active", "http.grpc.downstream_cx_tx_bytes_buffered"
    unwritten = [{requests: 1, waiting: 0}, {requests: 0, waiting: 9}, {requests: 0, waiting: 0}]
    async with envoy(tmp_path / "admin.sock", [], unwritten), Admin(tmp_path / "admin.sock") as admin:
        await asyncio.wait_for(admin.flush(), 30)
    assert unwritten == []
