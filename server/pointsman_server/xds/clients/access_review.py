"""Verifies the callers of open streams once a second: whether they may go on, and what they may read."""

import asyncio
from collections.abc import Callable

from pointsman_server.domain.errors import PointsmanError
from pointsman_server.runtime.fair_share import FairShare
from pointsman_server.telemetry.logs import get_logger
from pointsman_server.xds.clients.registry import Clients
from pointsman_server.xds.stream import Stream

log = get_logger(__name__)

# Between two reviews: how late the end of a credential, or another policy, takes effect.
REVIEW_SECONDS = 1.0
# Clients that are reviewed in a turn: a millisecond, where all credentials are to be verified again.
REVIEWED_IN_A_TURN = 10


class AccessReview:
    """Ends the streams whose credentials have ended, and sends the others what a changed policy lets them read.

    ``changed`` is called with a stream whose caller may read something else.
    """

    def __init__(self, clients: Clients, fair_share: FairShare, changed: Callable[[Stream], None]) -> None:
        self._clients = clients
        self._fair_share = fair_share
        self._changed = changed

    async def run(self) -> None:
        """Review once a second, until cancelled."""
        while True:
            await asyncio.sleep(REVIEW_SECONDS)
            await self.review()

    async def review(self) -> None:
        """Review every stream once."""
        for number, client in enumerate(self._clients):
            if number % REVIEWED_IN_A_TURN == 0:
                await self._fair_share.take()
            await self._review(client.stream)

    async def _review(self, stream: Stream) -> None:
        try:
            changed = await stream.client.caller.verify()
        except PointsmanError as error:
            stream.fail(error)
            return
        except Exception as error:
            # The other streams are reviewed all the same.
            log.exception("the caller of a stream of xDS could not be verified")
            stream.fail(error)
            return
        if changed and stream in self._clients:
            stream.check()
            self._changed(stream)
