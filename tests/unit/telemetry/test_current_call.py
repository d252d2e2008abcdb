"""The current call belongs to a task and what it starts, and to no other."""

import asyncio

from pointsman_server.telemetry.current_call import current


class Call:
    def __init__(self, request_id: str) -> None:
        self.request_id = request_id


async def test_each_task_has_its_own() -> None:
    async def work(name: str) -> str | None:
        current.set(Call(name))
        await asyncio.sleep(0)
        call = current.get()
        return call.request_id if call else None

    assert await asyncio.gather(asyncio.create_task(work("a")), asyncio.create_task(work("b"))) == ["a", "b"]
