import asyncio
from typing import Any

import grpc
import pytest

from pointsman.connection.bearer import Bearer
from pointsman.near_cache.watch.service import RemoteService, token_source


class Channel:
    """Is not connected to anything."""

    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


@pytest.fixture
def channels() -> list[Channel]:
    return []


def service_on(channels: list[Channel], token: str | None = None) -> RemoteService:
    def opened() -> grpc.Channel:
        channels.append(Channel())
        return channels[-1]  # type: ignore[return-value]

    return RemoteService(opened, lambda: token)


def test_a_connection_is_renewed_once_however_many_ask(channels: list[Channel]) -> None:
    service = service_on(channels)
    service.renew(0)
    service.renew(0)
    assert [channel.closed for channel in channels] == [True, False]
    assert service.generation == 1
    service.close()
    service.renew(1)
    assert [channel.closed for channel in channels] == [True, True]


@pytest.mark.parametrize(("token", "metadata"), [(None, ()), ("t", (("authorization", "Bearer t"),))])
def test_each_call_has_the_token_of_the_moment(channels: list[Channel], token: str | None, metadata: Any) -> None:
    assert service_on(channels, token).metadata() == metadata


def test_a_plain_token_needs_no_loop() -> None:
    assert token_source(Bearer("t"))() == "t"


async def test_an_asynchronous_token_is_made_in_the_loop() -> None:
    loops = []

    async def token() -> str:
        loops.append(asyncio.get_running_loop())
        return "t"

    source = token_source(Bearer(token))
    assert await asyncio.to_thread(source) == "t"
    assert loops == [asyncio.get_running_loop()]
