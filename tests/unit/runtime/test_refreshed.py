"""A refreshed value: the last good one stays, and unknown names do not cause a load each."""

import asyncio

import pytest

from pointsman_server.domain.access_errors import AccessUnavailable
from pointsman_server.runtime.refreshed import Refreshed, RefreshFailed
from tests.support.fakes import Gate, ManualClock


class Source:
    """Gives ``value``, or fails with ``problem``; waits at a gate first."""

    def __init__(self) -> None:
        self.value, self.problem = "first", ""
        self.loads = 0
        self.gate = Gate()

    async def load(self) -> str:
        self.loads += 1
        await self.gate.passing()
        if self.problem:
            raise RefreshFailed(self.problem)
        return self.value


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def heard() -> list[bool]:
    return []


@pytest.fixture
def kept(source: Source, clock: ManualClock, heard: list[bool]) -> Refreshed[str]:
    return Refreshed("the keys", source.load, interval=0.001, least_pause=5, on_result=heard.append, now=clock)


async def test_nothing_is_known_before_the_first_renewal(kept: Refreshed[str]) -> None:
    with pytest.raises(AccessUnavailable, match="has not read the keys"):
        _ = kept.value


async def test_the_last_value_is_kept(kept: Refreshed[str], source: Source) -> None:
    await kept.renew()
    assert (kept.value, kept.version) == ("first", 1)
    source.value = "second"
    await kept.renew()
    assert (kept.value, kept.version) == ("second", 2)


async def test_the_same_value_is_no_new_version(kept: Refreshed[str]) -> None:
    await kept.renew()
    await kept.renew()
    assert kept.version == 1


async def test_a_failure_keeps_the_last_good_value_and_says_why(
    kept: Refreshed[str], source: Source, heard: list[bool]
) -> None:
    await kept.renew()
    source.problem = "it is not there"
    await kept.renew()
    assert (kept.value, kept.version, kept.problem) == ("first", 1, "it is not there")
    source.problem = ""
    await kept.renew()
    assert (kept.problem, heard) == ("", [True, False, True])


async def test_unknown_names_renew_at_once_but_a_flood_of_them_no_more_often(
    kept: Refreshed[str], source: Source, clock: ManualClock
) -> None:
    await kept.renew()
    clock.advance(5)
    await asyncio.gather(*(kept.renew_for_unknown() for _ in range(1000)))
    assert source.loads == 2
    clock.advance(4.9)
    await kept.renew_for_unknown()
    assert source.loads == 2
    clock.advance(0.1)
    await kept.renew_for_unknown()
    assert source.loads == 3


async def test_who_comes_while_a_renewal_is_under_way_waits_for_it(kept: Refreshed[str], source: Source) -> None:
    source.gate.close()
    first = asyncio.create_task(kept.renew_for_unknown())
    await source.gate.arrivals()
    second = asyncio.create_task(kept.renew_for_unknown())
    await asyncio.sleep(0)
    assert not second.done()
    source.gate.open()
    await asyncio.gather(first, second)
    assert (source.loads, kept.value) == (1, "first")


async def test_a_source_that_is_slower_than_the_pause_is_not_asked_without_one(
    kept: Refreshed[str], source: Source, clock: ManualClock
) -> None:
    source.gate.close()
    crowd = [asyncio.create_task(kept.renew_for_unknown()) for _ in range(10)]
    await source.gate.arrivals()
    clock.advance(60)
    source.gate.open()
    await asyncio.gather(*crowd)
    assert source.loads == 1
    await kept.renew_for_unknown()
    assert source.loads == 1


async def test_a_cancelled_caller_does_not_prevent_the_reload(kept: Refreshed[str], source: Source) -> None:
    await kept.renew()
    source.value = "second"
    kept._ended = float("-inf")
    source.gate.close()
    leaving = asyncio.create_task(kept.renew_for_unknown())
    await source.gate.arrivals()
    staying = asyncio.create_task(kept.renew_for_unknown())
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    source.gate.open()
    await staying
    assert (kept.value, source.loads) == ("second", 2)


async def test_where_it_comes_from_is_for_the_log_alone(source: Source, caplog: pytest.LogCaptureFixture) -> None:
    kept = Refreshed("the keys", source.load, interval=1, source="https://issuer.internal/keys?of=canary")
    source.problem = "it is not there"
    await kept.renew()

    assert "the keys at https://issuer.internal/keys?of=canary cannot be read" in caplog.text
    with pytest.raises(AccessUnavailable) as caught:
        _ = kept.value
    assert "issuer.internal" not in f"{caught.value} {caught.value.metadata}"


async def test_it_renews_by_itself(kept: Refreshed[str], source: Source) -> None:
    running = asyncio.create_task(kept.run())
    async with asyncio.timeout(10):
        while source.loads < 3:  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.001)
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()


async def test_while_nothing_is_known_it_tries_again_soon(source: Source) -> None:
    kept = Refreshed("the keys", source.load, interval=3600, least_pause=0.001)
    source.problem = "it is not there"
    await kept.renew()
    assert not kept.has_loaded()
    source.problem = ""
    running = asyncio.create_task(kept.run())
    async with asyncio.timeout(10):
        while not kept.has_loaded():  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.001)
    running.cancel()
    assert kept.value == "first"


@pytest.mark.parametrize(("known", "pause"), [(True, 100.0), (False, 5.0)])
async def test_the_pause_is_long_only_once_something_is_known(
    source: Source, monkeypatch: pytest.MonkeyPatch, known: bool, pause: float
) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        raise asyncio.CancelledError

    kept = Refreshed("the keys", source.load, interval=100, least_pause=5)
    if known:
        await kept.renew()
    monkeypatch.setattr(asyncio, "sleep", sleep)
    with pytest.raises(asyncio.CancelledError):
        await kept.run()
    assert pauses == [pytest.approx(pause, rel=0.2)]
