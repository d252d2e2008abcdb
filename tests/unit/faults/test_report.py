"""What counts as a read of a cached key while PostgreSQL is out of order."""

from contextlib import nullcontext

import pytest

from tests.faults.faulting import Fault, Injected
from tests.faults.history import Call
from tests.faults.report import Writing, of_xds
from tests.faults.xds.records import Answer, Disturbance
from tests.faults.xds.records import Observed as ObservedByXds

CACHED = frozenset({"t/s/e/a"})


def counted(read: Call, *, writes: bool) -> bool:
    fault = Fault("f", "PostgreSQL", lambda _scene: nullcontext(), writes=writes)  # type: ignore[arg-type,return-value]
    write = Call(2.0, 3.0, "write", answered=True, key="t/s/e/b")
    return bool(Writing([write]).still_cached(Injected(fault, 0.0, 9.0, CACHED, expires=5.0), read))


@pytest.mark.parametrize(
    ("call", "without_writes", "with_writes"),
    [(1.0, True, True), (1.95, True, False), (2.5, True, False), (3.1, True, True), (5.1, False, False)],
    ids=["before", "into the write", "during it", "after it", "expired"],
)
def test_a_key_is_cached_until_it_expires_or_its_family_is_written(call, without_writes, with_writes) -> None:
    read = Call(call, call + 0.1, "read", answered=True, key="t/s/e/a")
    assert counted(read, writes=False) == without_writes
    assert counted(read, writes=True) == with_writes


def test_writes_of_others_take_nothing_away() -> None:
    read = Call(2.5, 2.6, "read", answered=True, key="t/other/e/a")
    assert counted(read, writes=True)


def test_what_xds_clients_did_is_told() -> None:
    observed = ObservedByXds(
        answers={("go", "a~b~c"): [Answer(1, 2, "OK", "one"), Answer(3, 4, "NOT_FOUND")]},
        disturbances=[Disturbance("a fault", 5, 6, 6.5), Disturbance("another", 7, 8, missing="go")],
        calls={"go": {"OK": 3, "NOT_FOUND": 1}},
    )
    assert of_xds(observed) == (
        "xDS clients, calls answered: go 4 (NOT_FOUND 1, OK 3); 2 changes of the answer\n"
        "xDS clients follow after a fault, ms: 500 / 500 / 500"
    )
