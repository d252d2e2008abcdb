"""A revision token requires its revision in the epoch that the store is in, and nothing in one that is over."""

import asyncio

import pytest

from pointsman_server.domain.errors import Overloaded, StoreUnavailable
from pointsman_server.epochs.guarded_store import GuardedStore
from pointsman_server.epochs.tracker import EpochTracker
from pointsman_server.ports.store import Clock
from pointsman_server.reads.revision_tokens import RevisionTokens
from tests.support.fakes import MemoryStore

OLD, NEW = "old-epoch", "new-epoch"


class Scene:
    """A guarded store whose epoch is known to be the old one."""

    def __init__(self) -> None:
        self.memory = MemoryStore()
        self.memory.epoch = OLD
        self.epochs = EpochTracker()
        self.store = GuardedStore(self.memory, self.epochs)


@pytest.fixture
async def scene() -> Scene:
    scene = Scene()
    await scene.store.clock()
    return scene


@pytest.fixture
def tokens(scene: Scene) -> RevisionTokens:
    return RevisionTokens(scene.epochs, scene.store)


async def test_a_token_of_this_epoch_requires_its_revision(scene: Scene, tokens: RevisionTokens) -> None:
    scene.memory.failure = StoreUnavailable()

    assert await tokens.floor(7, OLD) == 7


async def test_a_token_of_an_epoch_that_is_over_requires_nothing_without_a_query(
    scene: Scene, tokens: RevisionTokens
) -> None:
    scene.memory.epoch = NEW
    await scene.store.clock()
    scene.memory.failure = StoreUnavailable()

    assert await tokens.floor(7, OLD) == 0


async def test_a_token_of_a_new_epoch_requires_its_revision(scene: Scene, tokens: RevisionTokens) -> None:
    scene.memory.epoch = NEW

    assert await tokens.floor(7, NEW) == 7
    assert scene.epochs.epoch == NEW


async def test_a_token_of_an_unknown_epoch_requires_nothing(tokens: RevisionTokens) -> None:
    assert await tokens.floor(7, "never-heard-of") == 0


async def test_a_token_of_an_unknown_epoch_is_an_error_while_the_store_is_down(
    scene: Scene, tokens: RevisionTokens
) -> None:
    scene.memory.failure = StoreUnavailable()

    with pytest.raises(StoreUnavailable):
        await tokens.floor(7, NEW)


async def test_a_thousand_tokens_of_unknown_epochs_share_one_query(scene: Scene, tokens: RevisionTokens) -> None:
    asked = 0
    clock = scene.memory.clock

    async def counted() -> Clock:
        nonlocal asked
        asked += 1
        return await clock()

    scene.memory.clock = counted  # type: ignore[method-assign] # counts

    await asyncio.gather(*(tokens.floor(7, f"epoch-{number}") for number in range(1000)))

    assert asked == 1


async def test_tokens_beyond_a_thousand_that_wait_are_rejected(tokens: RevisionTokens) -> None:
    results = await asyncio.gather(
        *(tokens.floor(7, f"epoch-{number}") for number in range(1001)), return_exceptions=True
    )
    (refused,) = [result for result in results if isinstance(result, Overloaded)]
    assert refused.metadata["limit"] == "epochs"
    assert results.count(0) == 1000


async def test_a_token_that_comes_during_a_query_waits_for_the_next_one(scene: Scene, tokens: RevisionTokens) -> None:
    """Its epoch may have begun after the first query read the clock."""
    gate, begun = asyncio.Event(), 0
    clock = scene.memory.clock

    async def slow() -> Clock:
        nonlocal begun
        begun += 1
        answer = await clock()
        await gate.wait()
        return answer

    scene.memory.clock = slow  # type: ignore[method-assign] # waits
    first = asyncio.create_task(tokens.floor(7, "unknown"))
    while not begun:  # noqa: ASYNC110 - iterations of the loop are what passes
        await asyncio.sleep(0)
    scene.memory.epoch = NEW
    second = asyncio.create_task(tokens.floor(7, NEW))
    for _ in range(5):
        await asyncio.sleep(0)
    assert begun == 1
    gate.set()
    assert await first == 0
    assert await second == 7
    assert begun == 2
