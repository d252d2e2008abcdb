"""What the generators print is understood, and what is not answered is no figure."""

import pytest

from tests.bench.generators import LoadFailed, h2load_load, percentiles

PRINTED = """
finished in 2.00s, 1500.00 req/s, 100.00KB/s
requests: {done} total, {done} started, {done} done, {succeeded} succeeded, {failed} failed, 0 errored, 0 timeout
"""
LOG = "".join(f"1700000000000000\t200\t{microseconds}\n" for microseconds in range(1000, 4000))


def printed(done: int = 3000, succeeded: int = 3000, failed: int = 0) -> str:
    return PRINTED.format(done=done, succeeded=succeeded, failed=failed)


def test_the_rate_and_the_percentiles_of_h2load() -> None:
    load = h2load_load(printed(), LOG, 2.0, cpu=0.5)
    assert (load.calls, load.rate, load.cpu) == (3000, 1500, 0.5)
    assert load.p50 == pytest.approx(2.5, abs=0.01)
    assert load.p99 == pytest.approx(3.97, abs=0.01)


@pytest.mark.parametrize(
    "output",
    [printed(succeeded=2999, failed=1), printed(succeeded=2999), printed(done=0, succeeded=0), "", "no numbers here"],
)
def test_calls_that_were_not_answered_are_no_figure(output: str) -> None:
    with pytest.raises(LoadFailed):
        h2load_load(output, LOG, 2.0)


def test_one_call_has_percentiles_and_none_has_not() -> None:
    assert percentiles([1500]) == (1.5, 1.5)
    with pytest.raises(LoadFailed):
        percentiles([])
