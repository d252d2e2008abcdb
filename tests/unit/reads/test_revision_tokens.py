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
    """A store under guard, which was seen in its old epoch."""

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


async def test_a_token_of_this_epoch_counts_and_asks_nobody(scene: Scene, tokens: RevisionTokens) -> None:
    scene.memory.failure = StoreUnavailable()

    assert await tokens.floor(7, OLD) == 7


async def test_a_token_of_an_epoch_that_is_over_counts_for_nothing_and_asks_nobody(
    scene: Scene, tokens: RevisionTokens
) -> None:
    scene.memory.epoch = NEW
    await scene.store.clock()
    scene.memory.failure = StoreUnavailable()

    assert await tokens.floor(7, OLD) == 0


async def test_a_token_of_an_epoch_that_has_just_begun_counts(scene: Scene, tokens: RevisionTokens) -> None:
    scene.memory.epoch = NEW

    assert await tokens.floor(7, NEW) == 7
    assert scene.epochs.epoch == NEW


async def test_a_token_of_an_epoch_that_nobody_knows_counts_for_nothing(tokens: RevisionTokens) -> None:
    assert await tokens.floor(7, "never-heard-of") == 0


async def test_without_the_store_nobody_can_tell_whether_an_unknown_epoch_is_over(
    scene: Scene, tokens: RevisionTokens
) -> None:
    scene.memory.failure = StoreUnavailable()

    with pytest.raises(StoreUnavailable):
        await tokens.floor(7, NEW)


async def test_a_thousand_tokens_of_unknown_epochs_are_one_question(scene: Scene, tokens: RevisionTokens) -> None:
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
    """Its epoch may have begun since that one read."""
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
