"""What a run of mutmut found: each mutant by what it changes, and the explanations of those that survive."""

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

SERVER = "pointsman_server"
MUTATED = re.compile(r"^(?P<module>.+)\.x(?:_|ǁ(?P<owner>\w+)ǁ)(?P<function>\w+?)__mutmut_(?P<number>\d+)$")
ENTRY = re.compile(r"^(?P<place>\S+): `(?P<old>.*?)` → `(?P<new>.*?)`: (?P<reason>\S.*)$")


class Verdict(StrEnum):
    """How a mutant ended."""

    KILLED = "killed"
    SURVIVED = "survived"
    TIMEOUT = "timeout"
    NOT_COVERED = "not covered"
    UNKNOWN = "unknown"


# mutmut's exit statuses; any other, as 255 when pytest refuses its arguments, decides nothing.
# A mutant that makes the interpreter crash, or pytest itself fail, is found.
VERDICTS: Mapping[int | None, Verdict] = {
    0: Verdict.SURVIVED,
    1: Verdict.KILLED,
    3: Verdict.KILLED,
    -11: Verdict.KILLED,
    5: Verdict.NOT_COVERED,
    33: Verdict.NOT_COVERED,
    **dict.fromkeys((24, -24, 36, 152, -9), Verdict.TIMEOUT),
}


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of the source: ``place`` is module and function, of the server below its package."""

    module: str
    place: str
    old: str
    new: str
    verdict: Verdict

    def __str__(self) -> str:
        return f"{self.place}: `{self.old}` → `{self.new}`"


class BadEntry(ValueError):
    """A line of the file of explanations cannot be read."""


def read_mutants(source: Path) -> Iterator[Mutant]:
    """Read what mutmut kept in ``mutants/`` beside ``source``, the directory of the packages."""
    for meta in sorted(source.rglob("*.py.meta")):
        verdicts = json.loads(meta.read_text())["exit_code_by_key"]
        file = meta.with_suffix("")
        spans = json.loads(file.with_suffix(".py.spans").read_text())["spans"]
        lines = file.read_text().splitlines()
        for key, code in verdicts.items():
            name = key.rpartition(".")[2]
            original = re.sub(r"\d+$", "orig", name)
            old, new = (_body(lines, *spans[each]) for each in (original, name))
            yield _mutant(key, old, new, VERDICTS.get(code, Verdict.UNKNOWN))


def _body(lines: list[str], first: int, last: int) -> list[str]:
    # The names differ: of the mutant, of the original, and of neither in what is shown.
    return [re.sub(r"x(?:_|ǁ\w+ǁ)(\w+?)__mutmut_(?:orig|\d+)", r"\1", line) for line in lines[first - 1 : last]]


def _mutant(key: str, old: list[str], new: list[str], verdict: Verdict) -> Mutant:
    match = MUTATED.match(key)
    if match is None:
        raise ValueError(f"{key} is not the name of a mutant")
    module = match["module"].removeprefix(f"{SERVER}.")
    place = ".".join(part for part in (module, match["owner"], match["function"]) if part)
    difference = list(difflib.ndiff(old, new))
    removed, added = (" ".join(line[2:].strip() for line in difference if line[0] == sign) for sign in "-+")
    return Mutant(module, place, removed, added, verdict)


def read_explanations(text: str) -> dict[str, str]:
    """Read the file of survivors: reason by mutant. Raises BadEntry."""
    found = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = ENTRY.match(line)
        if match is None:
            raise BadEntry(f"line {number} is not of the form  place: `old` → `new`: reason")
        found[f"{match['place']}: `{match['old']}` → `{match['new']}`"] = match["reason"]
    return found


@dataclass(frozen=True, slots=True)
class Outcome:
    """The mutants of a run, beside what is explained."""

    mutants: tuple[Mutant, ...]
    explanations: Mapping[str, str]

    def survivors(self) -> list[Mutant]:
        """Give those that no test found, in the order of the source."""
        found = (Verdict.KILLED, Verdict.TIMEOUT)
        return [mutant for mutant in self.mutants if mutant.verdict not in found]

    def stale(self) -> list[str]:
        """Give the explanations, of modules that this run mutated, whose mutant no longer survives or exists."""
        modules = tuple(f"{mutant.module}." for mutant in self.mutants)
        alive = {str(mutant) for mutant in self.survivors()}
        return [entry for entry in self.explanations if entry.startswith(modules) and entry not in alive]

    def killed(self) -> float:
        """Give the killed and the timed out in percent of all."""
        return percentage(self.mutants)

    def table(self) -> Iterator[str]:
        """Render a row per module, and their sum."""
        width = max(len(mutant.module) for mutant in self.mutants)
        yield f"{'module':{width}}  mutants  killed  timeout  survived  not covered  killed %"
        for module in dict.fromkeys(mutant.module for mutant in self.mutants):
            yield _row(module, width, [mutant for mutant in self.mutants if mutant.module == module])
        yield _row("all", width, self.mutants)

    def listing(self) -> Iterator[str]:
        """Render the survivors as the file of explanations has them, with what it says of each."""
        for mutant in self.survivors():
            reason = self.explanations.get(str(mutant), "?")
            uncovered = "" if mutant.verdict is Verdict.SURVIVED else f" ({mutant.verdict})"
            yield f"{mutant}: {reason}{uncovered}"


def percentage(mutants: Iterable[Mutant]) -> float:
    """Give the share of mutants that tests found, in percent."""
    verdicts = [mutant.verdict for mutant in mutants]
    return 100 * sum(verdict in (Verdict.KILLED, Verdict.TIMEOUT) for verdict in verdicts) / max(1, len(verdicts))


def _row(name: str, width: int, mutants: Iterable[Mutant]) -> str:
    mutants = list(mutants)
    counts = {verdict: sum(mutant.verdict is verdict for mutant in mutants) for verdict in Verdict}
    missing = counts[Verdict.NOT_COVERED] + counts[Verdict.UNKNOWN]
    return (
        f"{name:{width}}  {len(mutants):7}  {counts[Verdict.KILLED]:6}  {counts[Verdict.TIMEOUT]:7}"
        f"  {counts[Verdict.SURVIVED]:8}  {missing:11}  {percentage(mutants):8.1f}"
    )
