"""The lookup of a declined call belongs to the task of that call."""

import asyncio

from pointsman_server.reads.local_lookup import LocalLookup
from pointsman_server.rpc.fastpath.declined import lookup_of_call, set_lookup_of_call


async def test_a_call_sees_its_own_lookup_alone() -> None:
    async def call(lookup: LocalLookup | None) -> LocalLookup | None:
        before = lookup_of_call()
        set_lookup_of_call(lookup)
        await asyncio.sleep(0)
        assert before is None
        return lookup_of_call()

    lookups = [LocalLookup(number, 0.0, ()) for number in range(3)]
    assert await asyncio.gather(*map(call, lookups)) == lookups
    assert lookup_of_call() is None
