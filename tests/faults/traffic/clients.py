"""Clients that commit, revert and select, which write down what they saw.

Writers send a request under its request_id until they know its outcome, and then select from what they changed. To each
server one of them sticks. Readers stick to a server or go round, and some send back what they saw.
"""

import asyncio
import time
from typing import Any

import grpc
import grpc.aio
from google.rpc import status_pb2

from pointsman.v1 import route_pb2, selection_pb2
from pointsman.v1 import route_service_pb2 as pb
from tests.faults.history import SET, UNANSWERED, Write
from tests.faults.load import NO_FLOOR, READ_SECONDS, Client, Load, info_of, status_of
from tests.faults.load import Target as ServerTarget
from tests.faults.traffic import recipes
from tests.faults.traffic.records import Observed, Selected, SetWrite, Target

READERS = 12
RATE = 60.0
WRITERS = 4
WRITE_PAUSE = 1.0
BATCH = 10
STICKY_KEYS = 500
STATES = {"NO_ACTIVE_VERSION": "none", "AMBIGUOUS_VERSION": "ambiguous"}
# Of a hundred writes.
REVERTS, SINGLE = 25, 10


class TrafficLoad:
    """All of these clients; they belong to ``load``, which ends them."""

    def __init__(self, load: Load) -> None:
        self.observed = Observed()
        # When selections missed an answered write, and for how many seconds it had been answered; told by the checker.
        self.staleness: list[tuple[float, float]] = []
        self._load = load

    async def start(self) -> None:
        """Create the families, then let everybody go."""
        first = Committer(self._load, 200, self.observed)
        await first.commit(recipes.beginning())
        # Undoing that would leave little to select from.
        self.observed.targets.clear()
        for number in range(WRITERS):
            home = number if number < 3 else None
            self._load.spawn(Committer(self._load, 210 + number, self.observed, home).run())
        for number in range(READERS):
            home = number // 3 % 3 if number % 3 == 0 else None
            self._load.spawn(Selector(self._load, 220 + number, self.observed, home, token=number % 3 == 1).run())


class Selector(Client):
    """A client that selects."""

    def __init__(
        self, load: Load, session: int, observed: Observed, home: int | None = None, *, token: bool = False
    ) -> None:
        super().__init__(load, session, home, token)
        self._observed = observed

    async def run(self) -> None:
        """Select until the load ends: mostly for one caller, sometimes for many."""
        pause = READERS / RATE
        await asyncio.sleep(self._dice.random() * pause)
        while not self._load.ended:
            due = time.monotonic() + pause
            (number,) = recipes.choose_families(self._dice, 1)
            if self._dice.random() < 0.12:
                await self.select_many()
            else:
                await self.select(recipes.family(number))
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def select(self, family: str) -> None:
        """Select once."""
        sticky_key, floor = self._sticky_key(), self._seen.get(family, NO_FLOOR)
        tenant, service, env = family.split("/")
        request = pb.SelectRequest(
            tenant=tenant, service=service, env=env, sticky_key=sticky_key, min_revision=floor[0], epoch=floor[1]
        )

        async def attempt(target: ServerTarget) -> None:
            life, call = target.server.life, time.monotonic()
            try:
                reply = await target.stub.Select(request, timeout=READ_SECONDS)
            except grpc.aio.AioRpcError as error:
                selected = not_selected(call, family, sticky_key, status_of(error))
                if selected is None:
                    raise
            else:
                selected = selected_of(call, family, sticky_key, reply.route, reply.provenance, reply.choice)
            self._note_selected(selected, life, target, floor)

        await self._failover("floor" if floor[0] else "select", attempt, family)

    async def select_many(self) -> None:
        """Select for many callers; all answers must be as of what is known of any of the families, or later."""
        families = [recipes.family(each) for each in recipes.choose_families(self._dice, BATCH)]
        keys = [self._sticky_key() for _ in families]
        seen = [self._seen.get(family, NO_FLOOR) for family in families]
        floor = max(each for each in seen if each[1] == seen[0][1])
        request = pb.BatchSelectRequest(min_revision=floor[0], epoch=floor[1])
        for family, sticky_key in zip(families, keys, strict=True):
            tenant, service, env = family.split("/")
            request.selections.add(tenant=tenant, service=service, env=env, sticky_key=sticky_key)

        async def attempt(target: ServerTarget) -> None:
            life, call = target.server.life, time.monotonic()
            reply = await target.stub.BatchSelect(request, timeout=READ_SECONDS)
            for family, sticky_key, result in zip(families, keys, reply.results, strict=True):
                if result.HasField("route"):
                    selected = selected_of(call, family, sticky_key, result.route, result.provenance, result.choice)
                else:
                    selected = not_selected(call, family, sticky_key, result.status)
                if selected is not None:
                    self._note_selected(selected, life, target, floor)

        await self._failover("floor" if floor[0] else "select", attempt, families[0], keys=len(families))

    def _sticky_key(self) -> str:
        return "" if self._dice.random() < 0.05 else f"caller-{self._dice.randrange(STICKY_KEYS)}"

    def _note_selected(self, selected: Selected, life: str, target: ServerTarget, floor: tuple[int, str]) -> None:
        selected.server = life if life == target.server.life else ""
        before = self._seen.get(selected.family, NO_FLOOR)
        # In a batch the floor may be of another epoch than what was seen of some of its families.
        covered = before == NO_FLOOR or (before[1] == floor[1] and before[0] <= floor[0])
        selected.session, selected.token = self._session, self._token and covered
        selected.floor, selected.floor_epoch = floor
        self._observed.selected.append(selected)
        if self._token:
            same = before[1] == selected.epoch
            self._seen[selected.family] = (max(before[0], selected.as_of) if same else selected.as_of, selected.epoch)


class Committer(Selector):
    """A client that writes many keys at once, and now and then one."""

    def __init__(self, load: Load, session: int, observed: Observed, home: int | None = None) -> None:
        super().__init__(load, session, observed, home)
        self._asked: dict[str, SetWrite] = {}

    async def run(self) -> None:
        """Write, then select, until the load ends."""
        while not self._load.ended:
            due = time.monotonic() + WRITE_PAUSE * (0.5 + self._dice.random())
            roll = self._dice.randrange(100)
            if roll < REVERTS and self._observed.targets:
                done = await self.revert()
            elif roll < REVERTS + SINGLE:
                done = [await self._single()]
            else:
                done = await self.commit(recipes.change_set(self._dice, f"c{self._session}-{time.monotonic_ns()}"))
            for family in done[:3]:
                await self.select(family)
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def commit(self, mutations: list[pb.Mutation]) -> list[str]:
        """Commit, and return the families that were to be changed."""
        families = list(dict.fromkeys(map(family_of, mutations)))
        asked = SetWrite(self._begin("commit", families[0]), tuple(mutations))
        request = pb.CommitRequest(mutations=mutations, request_id=asked.write.request_id)
        await self._carry_out_set(asked, "Commit", request)
        return families

    async def revert(self) -> list[str]:
        """Undo a change set, one of the last as a rule, or a part of it."""
        targets = list(self._observed.targets)
        target = self._dice.choice(targets[-3:] if self._dice.random() < 0.6 else targets)
        force, whole = self._dice.random() < 0.3, self._dice.random() < 0.8
        if not whole:
            first, last = sorted(self._dice.randint(target.first, target.last) for _ in range(2))
            target = Target(target.epoch, first, last)
        asked = SetWrite(self._begin("revert", recipes.family(0)), target=target, force=force)
        request = pb.RevertRequest(force=force, epoch=target.epoch, request_id=asked.write.request_id)
        if whole:
            request.change_set_id = target.first
        else:
            request.first_revision, request.last_revision = target.first, target.last
        await self._carry_out_set(asked, "Revert", request)
        changes = asked.reply.changes if asked.reply else ()
        return list(dict.fromkeys(f"{each.key.tenant}/{each.key.service}/{each.key.env}" for each in changes))

    async def _single(self) -> str:
        """Write one key of the families, as all writers do."""
        (number,) = recipes.choose_families(self._dice, 1)
        key = f"{recipes.family(number)}/{self._dice.choice(recipes.VERSIONS)}"
        await self._write(self._dice.choice(("update", "activate", "deactivate")), key)
        await self._read(key)
        return recipes.family(number)

    def _begin(self, kind: str, key: str) -> Write:
        request_id = f"{SET}{next(self._load.numbers)}"
        return Write(time.monotonic(), UNANSWERED, key, kind, request_id, "unknown", session=self._session)

    async def _carry_out_set(self, asked: SetWrite, method: str, request: Any) -> None:
        self._asked[asked.write.request_id] = asked
        await self._carry_out(asked.write, method, request)
        del self._asked[asked.write.request_id]
        self._observed.sets.append(asked)

    def _answered(self, write: Write, reply: Any) -> None:
        asked = self._asked.get(write.request_id)
        if asked is None:
            super()._answered(write, reply)
            return
        asked.reply, write.revision = reply, reply.change_set_id
        if not reply.change_set_id:
            write.kind, write.revision = "confirmed", reply.revision
        elif reply.changes:
            first = reply.changes[0]
            last = first.change_set_id + first.change_set_size - 1
            self._observed.targets.append(Target(first.epoch, first.change_set_id, last))

    def _refused(self, write: Write, error: grpc.aio.AioRpcError) -> None:
        if asked := self._asked.get(write.request_id):
            asked.reason = str(info_of(status_of(error)).reason)


def family_of(mutation: pb.Mutation) -> str:
    """Name the family that a mutation is of."""
    request = getattr(mutation, mutation.WhichOneof("mutation") or "")
    part = request.key if hasattr(request, "key") else request
    return f"{part.tenant}/{part.service}/{part.env}"


def selected_of(
    call: float,
    family: str,
    sticky_key: str,
    route: route_pb2.Route,
    where: pb.Provenance,
    choice: selection_pb2.Choice,
) -> Selected:
    """Take note of a choice."""
    return Selected(
        call,
        time.monotonic(),
        family,
        sticky_key,
        "chosen",
        where.as_of_revision,
        where.epoch,
        choice.version if route.key.version == choice.version else f"{choice.version} with {route.key.version}",
        route.revision,
        route.url,
        selection_pb2.Choice.Rule.Name(choice.rule).removeprefix("RULE_"),
        tuple(choice.inactive_versions),
        choice.traffic_revision,
    )


def not_selected(call: float, family: str, sticky_key: str, status: status_pb2.Status) -> Selected | None:
    """Take note that nothing can be chosen; None if the status says something else."""
    info = info_of(status)
    state = STATES.get(str(info.reason))
    if state is None:
        return None
    now, known = time.monotonic(), info.metadata
    return Selected(call, now, family, sticky_key, state, int(known["revision"]), known["epoch"])
