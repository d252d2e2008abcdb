"""Random histories of a store in memory, and what is to be found in a table of it."""

from collections.abc import Sequence
from contextlib import suppress

from hypothesis import strategies as st

from pointsman_server.domain.errors import PointsmanError
from pointsman_server.domain.routes import Change, RouteKey
from pointsman_server.domain.traffic import Division, Target
from pointsman_server.ports.store import Clock, Intent
from pointsman_server.writes.commit import Commit
from pointsman_server.writes.group_commit import GroupCommitter
from pointsman_server.writes.mutations import (
    Activate,
    Command,
    Create,
    Deactivate,
    Delete,
    DeleteTraffic,
    SetTraffic,
    Update,
)
from pointsman_server.xds.names import root_name
from pointsman_server.xds.table import Table
from pointsman_server.xds.targets import Target as Leads
from tests.support.fakes import MemoryCache, MemoryStore

INTENT = Intent("tester")
VERSIONS = ("v1", "V1", "v2")
KEYS = [RouteKey(tenant, "pay", env, version) for tenant in "aA" for env in ("prod", "Prod") for version in VERSIONS]
ROOTS = [
    *map(root_name, KEYS),
    *{root_name(key.family_key) for key in KEYS},
    "no~name",
    "v9~prod~pay~a",
    "prod~other~a",
]

_KEYS = st.sampled_from(KEYS)
_FAMILIES = _KEYS.map(lambda key: key.family_key)
_DIVISIONS = st.builds(
    lambda first, weight, fallbacks: Division(
        tuple(Target(version, share) for version, share in zip(first, (weight, 10_000 - weight), strict=True)),
        fallbacks,
    ),
    st.sampled_from([("v1", "v2"), ("v2", "V1")]),
    st.sampled_from([0, 1_000, 10_000]),
    st.sampled_from([(), ("v1",), ("V1", "v2")]),
)
MUTATIONS = st.one_of(
    st.builds(
        Update, _KEYS, st.sampled_from(["https://one.internal", "http://10.0.0.1:80"]), allow_missing=st.just(True)
    ),
    st.builds(Create, _KEYS, st.just("https://new.internal"), st.just({}), st.booleans()),
    st.builds(Activate, _KEYS, exclusive=st.booleans()),
    st.builds(Deactivate, _KEYS),
    st.builds(Delete, _KEYS),
    st.builds(SetTraffic, _FAMILIES, _DIVISIONS),
    st.builds(DeleteTraffic, _FAMILIES),
)
# Change sets, of which some are refused.
HISTORIES = st.lists(st.lists(MUTATIONS, min_size=1, max_size=4), max_size=12)


class History:
    """A store that one process writes; ``sets`` has the changes of each commit."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        self.store = store or MemoryStore()
        self.sets: list[list[Change]] = []
        self._committer = GroupCommitter(self.store, MemoryCache(), lambda _: None, self._committed)

    def _committed(self, changes: Sequence[Change]) -> None:
        self.sets.append(list(changes))

    async def commit(self, mutations: Sequence[Command]) -> list[Change]:
        """Commit a change set. Returns its changes, none if it is refused or changes nothing."""
        count = len(self.sets)
        with suppress(PointsmanError):
            await self._committer.commit(Commit(list(mutations)), INTENT)
        return self.sets[-1] if len(self.sets) > count else []

    async def write(self, histories: Sequence[Sequence[Command]]) -> None:
        """Commit change sets."""
        for mutations in histories:
            await self.commit(mutations)

    def table(self) -> Table:
        """Return a table that is made of the whole store at once."""
        return Table(
            Clock(self.store.epoch, self.store.revision), self.store.routes.values(), self.store.traffic.values()
        )


def content(table: Table) -> tuple[object, int, dict[str, Leads], set[str]]:
    """Return everything that can be asked of a table."""
    return table.clock, len(table), {root: table.target(root) for root in ROOTS}, set(table.roots())
