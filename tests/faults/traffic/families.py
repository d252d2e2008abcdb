"""What every family was as of every revision, from the history, and what a selection from it must answer."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pointsman.selection import Choice, Split, only_active
from tests.faults.history import Row


@dataclass(frozen=True, slots=True)
class Expected:
    """What a selection must answer."""

    state: str
    version: str = ""
    revision: int = 0
    url: str = ""
    rule: str = ""
    passed: tuple[str, ...] = ()
    traffic_revision: int = 0


@dataclass(slots=True)
class Family:
    """A family right after one of its changes: its traffic, and its routes by version, as the history has them."""

    name: str
    traffic: Mapping[str, Any] | None = None
    routes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    _split: Split | None = None

    def after(self, row: Row) -> "Family":
        """Return the family after a change."""
        if row.of_traffic:
            return Family(self.name, row.after, self.routes)
        version = row.key.rpartition("/")[2]
        others = {name: route for name, route in self.routes.items() if name != version}
        return Family(self.name, self.traffic, others | ({version: row.after} if row.after else {}))

    @property
    def active(self) -> list[str]:
        """The active versions, in their order."""
        return sorted(version for version, route in self.routes.items() if route["active"])

    def answers(self, sticky_key: str) -> list[Expected]:
        """Return what a selection may answer: one thing, and with an empty sticky key whatever has weight."""
        if not self.traffic:
            return [self._answer(only_active(self.active))]
        if sticky_key:
            return [self._answer(self._ready.choose(sticky_key))]
        weighty = [
            each["version"] for each in self.traffic["targets"] if each["weight"] and each["version"] in self.active
        ]
        if not weighty:
            return [self._answer(self._ready.choose("any"))]
        return [self._answer(Choice(version, self._ready.choose("any").rule)) for version in weighty]  # type: ignore[union-attr]

    @property
    def _ready(self) -> Split:
        assert self.traffic
        if self._split is None:
            slices = [(version, size) for version, size in self.traffic["slices"]]
            targets = [each["version"] for each in self.traffic["targets"]]
            self._split = Split(self.name, slices, targets, self.traffic["fallbacks"], self.active)
        return self._split

    def _answer(self, choice: Choice | None) -> Expected:
        if choice is None:
            return Expected("none" if self.traffic or not self.active else "ambiguous")
        route, traffic = self.routes[choice.version], self.traffic
        rule, revision = choice.rule.name, traffic["revision"] if traffic else 0
        return Expected(
            "chosen", choice.version, route["revision"], route["url"], rule, choice.inactive_versions, revision
        )


class Families:
    """The families of an era."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows: dict[str, list[Row]] = defaultdict(list)
        for row in sorted(rows, key=lambda row: row.revision):
            self._rows[row.family].append(row)
        self._revisions = {name: [row.revision for row in rows] for name, rows in self._rows.items()}
        self._states: dict[str, list[Family]] = {}

    def at(self, name: str, as_of: int) -> Family:
        """Return a family as of a revision."""
        if name not in self._states:
            states = [Family(name)]
            for row in self._rows.get(name, ()):
                states.append(states[-1].after(row))
            self._states[name] = states
        return self._states[name][self._place(name, as_of)]

    def last_of(self, name: str, as_of: int) -> Row | None:
        """Return the newest change of a family as of a revision."""
        place = self._place(name, as_of)
        return self._rows[name][place - 1] if place else None

    def torn(self, name: str, as_of: int) -> Row | None:
        """Return the next change of the family after a revision if it is of the same change set as the last one."""
        place, rows = self._place(name, as_of), self._rows.get(name, ())
        if 0 < place < len(rows) and rows[place].revision <= rows[place - 1].change_set_end:
            return rows[place]
        return None

    def _place(self, name: str, as_of: int) -> int:
        return bisect_right(self._revisions.get(name, ()), as_of)
