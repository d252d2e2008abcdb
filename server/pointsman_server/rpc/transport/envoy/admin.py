"""Envoy's administration, by HTTP over its Unix socket. https://www.envoyproxy.io/docs/envoy/latest/operations/admin"""

import asyncio
from pathlib import Path
from typing import Any, Self

import httpx

POLL_SECONDS = 0.02
# Gauges of the listener for gRPC.
UNWRITTEN = r"^http\.grpc\.(downstream_rq_active|downstream_cx_tx_bytes_buffered)$"


class Admin:
    """Asks and tells the Envoy whose administration listens on ``socket``."""

    def __init__(self, socket: Path) -> None:
        self._client = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=str(socket)), base_url="http://envoy", timeout=10
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def listening(self) -> int:
        """Wait until Envoy takes connections, and return the port."""
        while True:
            try:
                if (await self._client.get("/ready")).status_code == httpx.codes.OK:
                    return await self._port()
            except httpx.TransportError:
                pass  # not up yet
            await asyncio.sleep(POLL_SECONDS)

    async def _port(self) -> int:
        listeners = (await self._client.get("/listeners", params={"format": "json"})).json()
        address: dict[str, Any] = listeners["listener_statuses"][0]["local_address"]["socket_address"]
        return int(address["port_value"])

    async def flush(self) -> None:
        """Take no more connections, and wait until Envoy has written every response."""
        await self._client.post("/drain_listeners")
        while True:
            if not any((await self._unwritten()).values()):
                return
            await asyncio.sleep(POLL_SECONDS)

    async def _unwritten(self) -> dict[str, int]:
        """Read how many requests are open, and how many bytes wait for clients to read them."""
        stats = (await self._client.get("/stats", params={"format": "json", "filter": UNWRITTEN})).json()["stats"]
        return {stat["name"]: stat["value"] for stat in stats if "name" in stat}

    async def drain(self) -> None:
        """Ask clients by GOAWAY to connect elsewhere; calls in progress go on, and new connections are taken still."""
        await self._client.post("/drain_listeners", params={"graceful": "", "skip_exit": ""})
