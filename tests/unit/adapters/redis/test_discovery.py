"""What nodes and Sentinels answer, and whom to believe."""

import asyncio
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from pointsman_server.adapters.redis.discovery import NotFound, View, find_primary, read_slots

A, B = ("a", 1), ("b", 2)


class Asked:
    """Answers with ``reply``, or raises it, or never answers."""

    def __init__(self, reply: Any = None) -> None:
        self.reply = reply
        self.words: list[tuple[Any, ...]] = []

    async def command(self, *words: Any) -> Any:
        self.words.append(words)
        if self.reply is None:
            await asyncio.sleep(3600)
        if isinstance(self.reply, Exception):
            raise self.reply
        return self.reply


def slots(*ranges: tuple[int, int, Any, int]) -> list[Any]:
    return [[first, last, [host, port, b"id"], [b"replica", 9, b"id"]] for first, last, host, port in ranges]


async def read(**nodes: Asked) -> View:
    return await read_slots({(host, 1): asked for host, asked in nodes.items()})  # type: ignore[misc]


async def test_each_slot_has_its_primary() -> None:
    view = await read(x=Asked(slots((0, 8000, b"a", 1), (8001, 16383, b"b", 2))))
    assert (view.address_of("123456789"), view.is_complete) == (B, True)  # slot 12739
    assert view.address_of("{b}x") == A  # slot 3300
    assert view.addresses == {A, B}
    view.move(3300, ("c", 3))
    assert view.address_of("b") == ("c", 3)


@pytest.mark.parametrize("host", [b"", None, b"?"])
async def test_a_node_without_a_name_is_where_it_was_asked(host: bytes | None) -> None:
    assert (await read(x=Asked(slots((0, 16383, host, 7))))).address_of("k") == ("x", 7)


async def test_a_node_that_knows_of_all_slots_is_believed_first() -> None:
    half, whole = Asked(slots((0, 8000, b"a", 1))), Asked(slots((0, 16383, b"b", 2)))
    assert (await read(x=half, y=whole, z=Asked())).address_of("b") == B
    view = await read(x=half)
    assert not view.is_complete
    assert view.address_of("123456789") is None


async def test_without_an_answer_the_most_telling_error_is_raised() -> None:
    with pytest.raises(NotFound, match="does not answer"):
        await read(x=Asked(RedisConnectionError("lost")), y=Asked(OSError("lost")))
    with pytest.raises(ResponseError, match="disabled"):
        await read(x=Asked(RedisConnectionError("lost")), y=Asked(ResponseError("cluster support disabled")))


def state(port: int, epoch: int) -> list[bytes]:
    return [b"name", b"main", b"ip", b"a", b"port", b"%d" % port, b"config-epoch", b"%d" % epoch]


async def primary(*asked: Asked) -> Any:
    return (await find_primary(list(asked), "main")).address_of("any")  # type: ignore[arg-type]


async def test_the_sentinel_that_knows_of_the_latest_failover_is_believed() -> None:
    late = Asked({b"ip": "a", b"port": b"3", b"config-epoch": 4})
    assert await primary(Asked(state(1, 2)), late, Asked(state(2, 3))) == ("a", 3)
    assert late.words == [("SENTINEL", "MASTER", "main")]


async def test_sentinels_that_do_not_answer_are_not_waited_for() -> None:
    assert await primary(Asked(), Asked(RedisConnectionError("lost")), Asked(state(5, 1))) == ("a", 5)


async def test_why_no_primary_is_found_is_told() -> None:
    with pytest.raises(NotFound, match="knows no primary named main"):
        await primary(Asked(RedisConnectionError("lost")), Asked(ResponseError("No such master with that name")))
    with pytest.raises(ResponseError, match="NOPERM"):
        await primary(Asked(ResponseError("NOPERM")))
    with pytest.raises(NotFound, match="does not answer"):
        await primary(Asked(OSError("lost")))
