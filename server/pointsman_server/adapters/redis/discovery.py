"""Asks which Redis serves what: the nodes of a cluster for their slots, Sentinels for the primary."""

import asyncio
import random
import ssl
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import Any

from redis.crc import REDIS_CLUSTER_HASH_SLOTS
from redis.exceptions import RedisError, ResponseError

from pointsman_server.adapters.redis.connections import ScriptConnections
from pointsman_server.adapters.redis.deployment import Address
from pointsman_server.adapters.redis.names import slot_of

# So many nodes of a cluster are asked at once.
ASKED = 3
# Once the first has answered, others are waited for so many seconds.
GRACE = 0.1


class NotFound(RedisError):
    """No Redis is known for a key; the text follows the name of the deployment."""


class View:
    """Which address serves each slot. ``slots`` has None where none does; where there is one slot it is that of all."""

    def __init__(self, slots: list[Address | None]) -> None:
        self._slots = slots
        self.addresses = {address for address in slots if address}

    @property
    def is_complete(self) -> bool:
        return None not in self._slots

    def address_of(self, key: str) -> Address | None:
        return self._slots[slot_of(key)] if len(self._slots) > 1 else self._slots[0]

    def move(self, slot: int, address: Address) -> None:
        """Let another address serve a slot."""
        self._slots[slot] = address
        self.addresses.add(address)


async def read_slots(nodes: Mapping[Address, ScriptConnections]) -> View:
    """Ask some nodes of a cluster; the first that knows of all slots is believed, else the one that knows of most.

    Raises RedisError and OSError where none answers.
    """
    asked = random.sample(list(nodes), len(nodes))
    problem: BaseException = NotFound("does not answer")
    best: View | None = None
    for start in range(0, len(asked), ASKED):
        views = await _answers(_view_of(address, nodes[address]) for address in asked[start : start + ASKED])
        for view in views:
            if isinstance(view, BaseException):
                problem = view if _is_telling(view) else problem
            elif best is None or view.is_complete:
                best = view
        if best is not None and best.is_complete:
            break
    if best is None:
        raise problem
    return best


async def _view_of(address: Address, connections: ScriptConnections) -> View:
    slots: list[Address | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
    for first, last, primary, *_ in await connections.command("CLUSTER", "SLOTS"):
        host, port = _text(primary[0]), int(primary[1])
        # Empty: the one that was asked. "?": a name that is not configured.
        served_by = (address[0] if host in {"", "?"} else host, port)
        slots[first : last + 1] = [served_by] * (last + 1 - first)
    return View(slots)


async def find_primary(sentinels: Sequence[ScriptConnections], service: str) -> View:
    """Ask all Sentinels at once; of those that answer the one that knows of the latest failover is believed.

    Raises RedisError and OSError where none answers, or none knows the service.
    """
    found: list[tuple[int, Address]] = []
    problem: BaseException = NotFound("does not answer")
    for state in await _answers(_ask(sentinel, service) for sentinel in sentinels):
        if isinstance(state, BaseException):
            problem = state if _is_telling(state) else problem
        else:
            address = (_text(state["ip"]), int(state["port"]))
            found.append((int(state.get("config-epoch", 0)), address))
    if not found:
        raise problem
    return View([max(found)[1]])


async def _ask(sentinel: ScriptConnections, service: str) -> dict[str, Any]:
    try:
        state = await sentinel.command("SENTINEL", "MASTER", service)
    except ResponseError as error:
        if "No such master" in str(error):
            raise NotFound(f"knows no primary named {service}") from error
        raise
    pairs = state.items() if isinstance(state, dict) else zip(state[::2], state[1::2], strict=True)
    return {_text(name): value for name, value in pairs}


async def _answers(questions: Iterable[Awaitable[Any]]) -> list[Any]:
    """Return the results that are there a moment after the first that is no error; errors are returned."""
    waiting = {asyncio.ensure_future(question) for question in questions}
    results: list[Any] = []
    timeout = None
    try:
        while waiting:
            done, waiting = await asyncio.wait(waiting, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                break
            results += [task.exception() or task.result() for task in done]
            if any(not isinstance(result, BaseException) for result in results):
                timeout = GRACE
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    return results


def is_tls_failure(error: BaseException) -> bool:
    """Tell whether an error of redis-py is that of a handshake."""
    return any(isinstance(each, ssl.SSLError) for each in (error, error.__cause__, error.__context__))


def _is_telling(error: BaseException) -> bool:
    """Tell whether an error says more than that there was no answer."""
    told = isinstance(error, ResponseError | NotFound) or getattr(error, "status_code", None) is not None
    return told or is_tls_failure(error)


def _text(value: bytes | str | None) -> str:
    return value.decode() if isinstance(value, bytes) else value or ""
