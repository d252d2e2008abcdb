"""Holds selections to the history, and calls the rules of change sets: promises 4 to 7, 14 and 16."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from tests.faults import checking, eras
from tests.faults.checking import Model, Violation
from tests.faults.history import Era, History, Read
from tests.faults.traffic.change_sets import check_sets
from tests.faults.traffic.families import Expected, Families
from tests.faults.traffic.records import Observed, Selected

# The rules of keys that hold for families too: a family is one key, which changes with each of its parts.
RULES_OF_KEYS = (
    checking.no_ops_are_current,
    checking.nothing_from_the_future,
    checking.floors_hold,
    checking.staleness_is_bounded,
    checking.own_writes_show_at_once,
    checking.sessions_go_forward,
)
RULES_OF_EPOCHS = (eras.epochs_are_known, eras.lost_eras_are_left, eras.tokens_lead_forward)


def check_traffic(
    observed: Observed, near: Sequence[Sequence[Selected]], models: Sequence[Model], history: Sequence[Era]
) -> tuple[list[Violation], list[tuple[float, float]]]:
    """Hold everything to every rule; ``models`` are those of the eras of ``history``.

    Returns, too, when selections missed an answered write, and for how long that had been answered.
    """
    families = {era.epoch: Families(era.rows) for era in history}
    reads = History(reads=[as_read(each) for each in observed.selected])
    violations: list[Violation] = []
    for rule in RULES_OF_EPOCHS:
        violations += [replace(each, rule=f"selections: {each.rule}") for each in rule(reads, history)]
    violations += check_sets(observed.sets, models)
    violations += without_epoch_they_are_true(observed.selected, families)
    staleness: list[tuple[float, float]] = []
    for model, era in zip(models, history, strict=True):
        selected = [each for each in observed.selected if each.epoch == era.epoch]
        violations += selections_are_true(selected, families[era.epoch], 16)
        by_family = as_families(model, selected)
        found = [violation for rule_of_keys in RULES_OF_KEYS for violation in rule_of_keys(by_family)]
        violations += [replace(each, rule=f"selections: {each.rule}") for each in found]
        staleness += checking.staleness(by_family)
    for seen in near:
        for era in history:
            shown = [each for each in seen if each.epoch == era.epoch]
            violations += selections_are_true(shown, families[era.epoch], 14)
        violations += near_caches_go_forward(seen, families)
    return violations, sorted(staleness)


def as_read(selected: Selected) -> Read:
    """Take a selection as a read of its family, which shows the newest change of it."""
    return Read(
        selected.call,
        selected.ret,
        selected.family,
        selected.state,
        0,
        selected.as_of,
        server=selected.server,
        session=selected.session,
        floor=selected.floor,
        token=selected.token,
        epoch=selected.epoch,
        floor_epoch=selected.floor_epoch,
    )


def as_families(model: Model, selected: Sequence[Selected]) -> Model:
    """Make a model of an era in which each family is one key, and selections are the reads."""
    reads = [as_read(each) for each in selected]
    for read in reads:
        if read.floor_epoch not in ("", read.epoch):
            read.floor = 0
    rows = [replace(row, key=row.family) for row in model.rows]
    return Model(History(reads=reads, writes=model.history.writes), rows, model.bounds, model.degraded)


def shown(selected: Selected) -> Expected:
    """Return what a selection says."""
    return Expected(
        selected.state,
        selected.version,
        selected.revision,
        selected.url,
        selected.rule,
        selected.passed,
        selected.traffic_revision,
    )


def is_true(selected: Selected, families: Families) -> bool:
    """Say whether a selection is what the rule makes of the family as of its revision."""
    answers = families.at(selected.family, selected.as_of).answers(selected.sticky_key)
    if selected.sticky_key:
        return shown(selected) in answers
    # What was passed over depends on the text at random that takes the place of an empty sticky key.
    return replace(shown(selected), passed=()) in [replace(each, passed=()) for each in answers]


def selections_are_true(selected: Sequence[Selected], families: Families, promise: int) -> Iterator[Violation]:
    """Promises 16, 14 and 15: each is what the rule makes of one state of its family, between two change sets."""
    for each in selected:
        if not is_true(each, families):
            family = families.at(each.family, each.as_of)
            text = f"{each} instead of {family.answers(each.sticky_key)}: {family.traffic}, active {family.active}"
            yield Violation(promise, "a selection that the traffic does not make", each.ret, text)
        if torn := families.torn(each.family, each.as_of):
            yield Violation(15, "a selection shows a part of a change set", each.ret, f"{each}; {torn}")


def without_epoch_they_are_true(selected: Sequence[Selected], families: Mapping[str, Families]) -> Iterator[Violation]:
    """Promise 16: one whose server did not know its epoch is true in some."""
    for each in selected:
        if not each.epoch and not any(is_true(each, era) for era in families.values()):
            yield Violation(16, "a selection without an epoch that was never true", each.ret, str(each))


def near_caches_go_forward(seen: Sequence[Selected], families: Mapping[str, Families]) -> Iterator[Violation]:
    """Promise 14: no family goes back to an older revision, and no table to an epoch that is over."""
    order = {epoch: number for number, epoch in enumerate(families)}
    last: dict[str, tuple[tuple[int, int], Selected]] = {}
    for each in seen:
        if each.epoch not in families:
            yield Violation(14, "a near-cache selected in an epoch that never was", each.ret, str(each))
            continue
        row = families[each.epoch].last_of(each.family, each.as_of)
        now = (order[each.epoch], row.revision if row else 0)
        before, which = last.get(each.family, (now, each))
        if now < before:
            yield Violation(14, "a near-cache went back", each.ret, f"{which}; {each}")
        last[each.family] = (now, each)
