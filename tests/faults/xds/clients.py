"""Runs one xDS client of each kind, which call all the time, and changes what their names lead to.

Two of them reach all servers by one address, as by a Service of Kubernetes; the others stay with one server each. After
every fault a change set leads each name to a backend where none led before: so it shows that each client follows again.
"""

import asyncio
import itertools
import random
import time
from contextlib import ExitStack

from tests.faults.load import Load
from tests.faults.rig import Rig
from tests.faults.traffic.clients import Committer
from tests.faults.traffic.records import Observed as ObservedSets
from tests.faults.xds import names
from tests.faults.xds.callers import Caller, running
from tests.faults.xds.records import Disturbance, Observed
from tests.support.xds_clients.backends import backends
from tests.support.xds_clients.clients import KINDS

SESSION = 240
PAUSE = 0.35
# How long after a fault a client may take to follow, beside the time that the fault took: gRPC clients wait longer and
# longer between attempts to connect, so the last wait is about as long as those before it together.
FOLLOW_SECONDS = 20.0
LOOK_SECONDS = 0.03


class XdsClients:
    """All xDS clients of a run, their backends, and the writer of their routes."""

    def __init__(self, load: Load, rig: Rig, seed: int) -> None:
        self._load, self._rig = load, rig
        self._dice = random.Random(f"{seed}-xds")
        self._sets = ObservedSets()
        self._writer = Committer(load, SESSION, self._sets)
        # Held while a change set is made, and after a fault until every client follows.
        self._turn = asyncio.Lock()
        self._backends = itertools.cycle(names.AFTER_FAULTS)
        self._urls: dict[str, str] = {}
        self._callers: list[Caller] = []
        self._closing = ExitStack()
        self.observed = Observed(sets=self._sets.sets)

    async def start(self) -> None:
        """Start the backends, create the routes, connect, and let everybody go."""
        try:
            await self._start()
        except BaseException:
            self._closing.close()
            raise

    async def _start(self) -> None:
        opened = self._closing.enter_context(backends())
        for name in (*names.BACKENDS, *names.AFTER_FAULTS):
            host = "localhost" if name in names.BY_NAME else "127.0.0.1"
            self._urls[name] = f"http://{host}:{await asyncio.to_thread(opened.open, name)}"
        self.observed.backends = {url: name for name, url in self._urls.items()}
        await self._writer.commit(names.beginning(self._urls))
        for number, kind in enumerate(KINDS):
            address = self._rig.xds_address(None if number % 2 else number % len(self._rig.servers))
            self._callers.append(self._closing.enter_context(running(kind, address)))
        for caller in self._callers:
            await asyncio.to_thread(caller.begin)
        await self.follow("the start", time.monotonic())
        self._load.spawn(self._write())

    async def _write(self) -> None:
        while not self._load.ended:
            due = time.monotonic() + PAUSE * (0.5 + self._dice.random())
            async with self._turn:
                await self._writer.commit(names.change_set(self._dice, self._urls))
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def follow(self, fault: str, begin: float) -> None:
        """Lead every name elsewhere, and wait until every client has that, or for as long as that may take."""
        disturbance = Disturbance(fault, begin)
        async with self._turn:
            disturbance.healed = time.monotonic()
            give_up = disturbance.healed + FOLLOW_SECONDS + disturbance.healed - begin
            backend = next(self._backends)
            while missing := await self._lead_to(backend):
                if time.monotonic() > give_up:
                    break
            while not missing or time.monotonic() < give_up:
                missing = [text for caller in self._callers for text in caller.lacks(backend)]
                if not missing:
                    disturbance.end = time.monotonic()
                    break
                await asyncio.sleep(LOOK_SECONDS)
        disturbance.missing = "; ".join(missing)
        if missing:
            print(f"          {len(missing)} names of xDS clients do not follow, such as {missing[0]}", flush=True)
        self.observed.disturbances.append(disturbance)

    async def _lead_to(self, backend: str) -> list[str]:
        """Make the change set; return what is wrong with that."""
        await self._writer.commit(names.after_a_fault(self._urls, backend))
        answer = self._sets.sets[-1].write.answer
        return [] if answer == "ok" else [f"the change set was answered {answer}"]

    async def stop(self) -> None:
        """Keep what everybody was answered, and end everything."""
        self.observed.ended = time.monotonic()
        try:
            for caller in self._callers:
                self.observed.answers |= {(caller.kind, name): caller.answers(name) for name in names.NAMES}
                try:
                    counts = await asyncio.to_thread(caller.counts)
                except (OSError, AssertionError) as error:
                    self.observed.deaths[caller.kind] = str(error)
                else:
                    self.observed.calls[caller.kind] = counts
        finally:
            await asyncio.to_thread(self._closing.close)
