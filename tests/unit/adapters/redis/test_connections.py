"""Connections for scripts, on a fake pool."""

import asyncio
from typing import Any

import hiredis
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ResponseError

from pointsman_server.adapters.redis.connections import Call, Script, ScriptConnections

SCRIPT = Script("return 1", "5ca1e")
CALL = Call(SCRIPT, ["owner", 7, b"\xff"], ["key"])


class FakeConnection:
    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.reply: Any = b"reply"
        self.replies: list[Any] = []
        self.is_connected = True
        self.readable = False
        self.refuses = False
        self.reading = asyncio.Event()
        self.gate: asyncio.Event | None = None

    async def send_packed_command(self, command: bytes, check_health: bool = True) -> None:
        self.calls.append(("send", command, check_health))

    async def read_response(self) -> Any:
        if self.replies:
            self.reply = self.replies.pop(0)
        if isinstance(self.reply, BaseException):
            raise self.reply
        self.reading.set()
        if self.gate:
            await self.gate.wait()
        return self.reply

    async def can_read(self) -> bool:
        return self.readable

    async def connect(self) -> None:
        self.calls.append("connect")
        if self.refuses:
            raise RedisConnectionError("refused")
        self.is_connected = True

    async def disconnect(self, nowait: bool = False) -> None:
        self.calls.append("disconnect at once" if nowait else "disconnect")
        self.is_connected = False


class FakePool:
    def __init__(self) -> None:
        self.made: list[FakeConnection] = []
        self.released: list[FakeConnection] = []

    async def get_connection(self) -> FakeConnection:
        self.made.append(FakeConnection())
        return self.made[-1]

    async def release(self, connection: FakeConnection) -> None:
        self.released.append(connection)


@pytest.fixture
def pool() -> FakePool:
    return FakePool()


@pytest.fixture
def connections(pool: FakePool) -> ScriptConnections:
    return ScriptConnections(pool)


async def run(connections: ScriptConnections) -> Any:
    return await connections.run(CALL)


def sent(pool: FakePool, number: int = 0) -> list[bytes]:
    return [call[1] for call in pool.made[number].calls if call[0] == "send"]


async def test_a_script_is_run_by_its_hash(connections: ScriptConnections, pool: FakePool) -> None:
    assert await run(connections) == b"reply"
    command = hiredis.pack_command(("EVALSHA", "5ca1e", 1, "key", "owner", 7, b"\xff"))  # type: ignore[arg-type]
    assert pool.made[0].calls == [("send", command, False)]


async def test_a_script_may_have_no_keys(connections: ScriptConnections, pool: FakePool) -> None:
    await connections.run(Call(SCRIPT, ["owner"]))
    command = hiredis.pack_command(("EVALSHA", "5ca1e", 0, "owner"))  # type: ignore[arg-type]
    assert pool.made[0].calls == [("send", command, False)]


async def test_a_lost_script_is_sent_whole_and_run_again_on_the_same_connection(
    connections: ScriptConnections, pool: FakePool
) -> None:
    await run(connections)
    pool.made[0].replies = [NoScriptError("NOSCRIPT"), b"5ca1e", b"second reply"]
    assert await run(connections) == b"second reply"
    load = hiredis.pack_command(("SCRIPT", "LOAD", "return 1"))
    assert sent(pool)[1:] == [CALL.packed(), load, CALL.packed()]
    assert connections._idle == [pool.made[0]]


async def test_a_moving_slot_is_asked_for_in_the_same_breath(connections: ScriptConnections, pool: FakePool) -> None:
    await run(connections)
    pool.made[0].replies = [b"OK", NoScriptError("NOSCRIPT"), b"5ca1e", b"OK", b"reply"]
    assert await connections.run(CALL, asking=True) == b"reply"
    assert sent(pool)[1] == sent(pool)[3] == hiredis.pack_command(("ASKING",)) + CALL.packed()


async def test_many_are_sent_at_once_and_each_has_its_reply(connections: ScriptConnections, pool: FakePool) -> None:
    await run(connections)
    refusal = ResponseError("TRYAGAIN")
    pool.made[0].replies = [b"one", refusal, b"three"]
    other = Call(SCRIPT, (), ["other"])
    assert await connections.run_all([CALL, other, CALL]) == [b"one", refusal, b"three"]
    assert sent(pool)[1] == CALL.packed() + other.packed() + CALL.packed()
    assert connections._idle == [pool.made[0]]


def test_a_script_has_the_hash_that_redis_gives_it() -> None:
    assert Script.of("return 1").sha == "e0e1f9fabfc9d4800c877a703b823ac0578ff8db"


async def test_the_connection_that_was_used_last_is_used_again(connections: ScriptConnections, pool: FakePool) -> None:
    first, second = FakeConnection(), FakeConnection()
    connections._idle = [first, second]
    await run(connections)
    assert (first.calls, len(second.calls)) == ([], 2)
    assert second.calls[0] == "connect"
    assert connections._idle == [first, second]
    assert pool.made == []


async def test_calls_at_the_same_time_have_a_connection_each(connections: ScriptConnections, pool: FakePool) -> None:
    blocked = FakeConnection()
    blocked.gate = asyncio.Event()
    connections._idle = [blocked]
    task = asyncio.create_task(run(connections))
    await blocked.reading.wait()
    assert await run(connections) == b"reply"
    assert len(pool.made) == 1
    blocked.gate.set()
    assert await task == b"reply"
    assert connections._idle == [pool.made[0], blocked]


async def test_a_refusal_keeps_the_connection_open(connections: ScriptConnections, pool: FakePool) -> None:
    await run(connections)
    pool.made[0].reply = ResponseError("OOM")
    with pytest.raises(ResponseError):
        await run(connections)
    assert connections._idle == [pool.made[0]]
    assert not any("disconnect" in call for call in pool.made[0].calls if isinstance(call, str))


@pytest.mark.parametrize("error", [RedisConnectionError("lost"), asyncio.CancelledError(), OSError("lost")])
async def test_without_a_complete_reply_the_connection_is_closed_at_once(
    connections: ScriptConnections, pool: FakePool, error: BaseException
) -> None:
    await run(connections)
    pool.made[0].reply = error
    with pytest.raises(type(error)):
        await run(connections)
    assert pool.made[0].calls[-1] == "disconnect at once"
    assert connections._idle == [pool.made[0]]


async def test_a_connection_with_an_unread_reply_is_reconnected(connections: ScriptConnections) -> None:
    idle = FakeConnection()
    idle.readable = True
    connections._idle = [idle]
    await run(connections)
    assert idle.calls[:2] == ["disconnect", "connect"]


async def test_a_lost_connection_is_reconnected_without_a_look(connections: ScriptConnections) -> None:
    idle = FakeConnection()
    idle.is_connected, idle.readable = False, True
    connections._idle = [idle]
    await run(connections)
    assert idle.calls[0] == "connect"


async def test_a_connection_that_cannot_be_reconnected_stays_for_the_next_call(connections: ScriptConnections) -> None:
    idle = FakeConnection()
    idle.refuses = True
    connections._idle = [idle]
    with pytest.raises(RedisConnectionError):
        await run(connections)
    assert idle.calls == ["connect", "disconnect at once"]
    assert connections._idle == [idle]
    idle.refuses = False
    assert await run(connections) == b"reply"


async def test_a_connection_may_be_made_before_it_is_needed(connections: ScriptConnections, pool: FakePool) -> None:
    await connections.connect()
    await connections.connect()
    await run(connections)
    assert len(pool.made) == 1


async def test_close_gives_every_connection_back(connections: ScriptConnections, pool: FakePool) -> None:
    first, second = FakeConnection(), FakeConnection()
    connections._idle = [first, second]
    await connections.close()
    assert (first.calls, second.calls) == (["disconnect"], ["disconnect"])
    assert pool.released == [second, first]
    assert connections._idle == []
