"""What a run of mutmut is read as."""

import json
from pathlib import Path

import pytest

from tests.mutants.__main__ import SURVIVORS
from tests.mutants.results import BadEntry, Mutant, Outcome, Verdict, read_explanations, read_mutants

GENERATED = """\
class Cache:
    def xǁCacheǁtake__mutmut_orig(self, key):
        if key > 0:
            return self._take(key)

    def xǁCacheǁtake__mutmut_1(self, key):
        if key >= 0:
            return self._take(key)


def x_size__mutmut_orig():
    return call(
        1, "a"
    )

def x_size__mutmut_1():
    return call(
        2, "a"
    )
"""
SPANS = {
    "xǁCacheǁtake__mutmut_orig": [2, 4],
    "xǁCacheǁtake__mutmut_1": [6, 8],
    "x_size__mutmut_orig": [11, 14],
    "x_size__mutmut_1": [16, 19],
}
TAKE, SIZE = "pointsman_server.reads.cache.xǁCacheǁtake__mutmut_1", "pointsman_server.reads.cache.x_size__mutmut_1"
FOUND = "reads.cache.Cache.take: `if key > 0:` → `if key >= 0:`"


def kept(directory: Path, codes: dict[str, int | None]) -> list[Mutant]:
    file = directory / "reads" / "cache.py"
    file.parent.mkdir()
    file.write_text(GENERATED)
    file.with_suffix(".py.spans").write_text(json.dumps({"version": 1, "spans": SPANS}))
    file.with_suffix(".py.meta").write_text(json.dumps({"exit_code_by_key": codes}))
    return list(read_mutants(directory))


def test_a_mutant_is_named_by_its_place_and_by_what_it_changes(tmp_path: Path) -> None:
    take, size = kept(tmp_path, {TAKE: 0, SIZE: 1})
    assert (str(take), take.module, take.verdict) == (FOUND, "reads.cache", Verdict.SURVIVED)
    assert (str(size), size.verdict) == ('reads.cache.size: `1, "a"` → `2, "a"`', Verdict.KILLED)


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        (1, Verdict.KILLED),
        (36, Verdict.TIMEOUT),
        (-24, Verdict.TIMEOUT),
        (33, Verdict.NOT_COVERED),
        (None, Verdict.UNKNOWN),
        (255, Verdict.UNKNOWN),
    ],
)
def test_the_exit_status_of_a_mutant_is_its_verdict(tmp_path: Path, code: int | None, verdict: Verdict) -> None:
    (mutant,) = kept(tmp_path, {TAKE: code})
    assert mutant.verdict is verdict


def mutants(**counts: int) -> tuple[Mutant, ...]:
    return tuple(
        Mutant("reads.cache", "reads.cache.size", f"{number}", verdict, Verdict[verdict])
        for verdict, count in counts.items()
        for number in range(count)
    )


def test_what_times_out_counts_as_killed_and_what_is_not_covered_does_not() -> None:
    outcome = Outcome(mutants(KILLED=17, TIMEOUT=2, NOT_COVERED=1), {})
    assert outcome.killed() == 95.0
    assert [mutant.verdict for mutant in outcome.survivors()] == [Verdict.NOT_COVERED]
    _, row, total = outcome.table()
    assert row.split() == ["reads.cache", "20", "17", "2", "0", "1", "95.0"]
    assert total.split() == ["all", *row.split()[1:]]


def test_what_no_test_decided_counts_as_not_covered() -> None:
    outcome = Outcome(mutants(KILLED=1, UNKNOWN=1), {})
    assert outcome.killed() == 50.0
    assert [mutant.verdict for mutant in outcome.survivors()] == [Verdict.UNKNOWN]


def test_a_survivor_is_listed_with_its_reason_or_a_question_mark() -> None:
    one, two = mutants(SURVIVED=2)
    outcome = Outcome((one, two), {str(one): "equivalent"})
    assert list(outcome.listing()) == [f"{one}: equivalent", f"{two}: ?"]


def test_an_explanation_of_a_mutant_that_does_not_survive_is_stale() -> None:
    (alive,) = mutants(SURVIVED=1)
    gone, elsewhere = "reads.cache.size: `x` → `y`", "writes.ledger.Ledger.read: `x` → `y`"
    outcome = Outcome((alive,), {str(alive): "same", gone: "same", elsewhere: "same"})
    assert outcome.stale() == [gone]


def test_the_file_of_survivors_is_read_line_by_line() -> None:
    text = f"# a comment\n\n{FOUND}: `key` is never 0\n"
    assert read_explanations(text) == {FOUND: "`key` is never 0"}


@pytest.mark.parametrize("line", [FOUND, f"{FOUND}: ", f"{FOUND}:", "reads.cache: equivalent"])
def test_a_line_without_a_reason_is_refused(line: str) -> None:
    with pytest.raises(BadEntry, match="line 1"):
        read_explanations(line)


def test_the_committed_file_can_be_read() -> None:
    assert isinstance(read_explanations(SURVIVORS.read_text()), dict)
