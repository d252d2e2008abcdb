"""Who is let in, and who is too many."""

import asyncio

import pytest

from pointsman_server.domain.errors import Overloaded, ShuttingDown
from pointsman_server.rpc.interceptors.admission import Admission


def enter(admission: Admission, times: int) -> None:
    for _ in range(times):
        admission.enter()


def test_as_many_calls_as_the_limit_are_let_in():
    admission = Admission(3)
    enter(admission, 3)

    admission.check()


def test_one_more_is_overload():
    admission = Admission(3)
    enter(admission, 4)
    with pytest.raises(Overloaded) as caught:
        admission.check()

    assert caught.value.metadata == {"limit": "concurrent_calls"}


def test_who_leaves_makes_room():
    admission = Admission(3)
    enter(admission, 4)
    admission.leave()

    admission.check()


def test_zero_is_no_limit():
    admission = Admission(0)
    enter(admission, 100_000)

    admission.check()


async def test_once_closed_nobody_is_let_in():
    admission = Admission(3)
    await admission.close(patience=1)
    with pytest.raises(ShuttingDown):
        admission.check()


async def test_closing_waits_for_those_inside():
    admission = Admission()
    enter(admission, 2)
    closing = asyncio.create_task(admission.close(patience=30))
    await asyncio.sleep(0)
    admission.leave()
    await asyncio.sleep(0)
    assert not closing.done()
    admission.leave()

    await closing
