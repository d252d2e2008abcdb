"""What exists after the block is never collected; later garbage is."""

import gc
from collections.abc import Iterator

import pytest

from pointsman_server.runtime.gc_freeze import THRESHOLDS, gc_disabled_then_frozen


class Cycle:
    """Garbage that only the collector finds."""

    def __init__(self) -> None:
        self.me = self


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)
    gc.unfreeze()
    gc.enable()


def test_nothing_is_collected_meanwhile() -> None:
    with gc_disabled_then_frozen():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_threshold() == THRESHOLDS


def test_what_was_made_is_not_looked_at_again_and_what_comes_later_is() -> None:
    with gc_disabled_then_frozen():
        kept = Cycle()
    later = Cycle()
    looked_at = {id(each) for each in gc.get_objects()}
    assert id(later) in looked_at
    assert id(kept) not in looked_at
    assert gc.get_freeze_count() > 0


def test_the_collector_is_on_again_also_after_an_import_that_failed() -> None:
    with pytest.raises(ImportError), gc_disabled_then_frozen():
        raise ImportError("no such module")
    assert gc.isenabled()
