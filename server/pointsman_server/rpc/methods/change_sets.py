"""Serves Commit and Revert."""

from collections.abc import Sequence

from pointsman.v1 import route_service_pb2 as pb
from pointsman_server.auth.permissions import Permissions
from pointsman_server.domain.routes import Change
from pointsman_server.ports.store import Outcome, RouteStore
from pointsman_server.rpc import change_sets, convert
from pointsman_server.rpc.call import current_call
from pointsman_server.rpc.methods.usage import UsageMethods
from pointsman_server.rpc.methods.write_meter import WriteMeter
from pointsman_server.runtime.fair_share import FairShare
from pointsman_server.runtime.offload import in_thread_if_large
from pointsman_server.writes.group_commit import GroupCommitter


class ChangeSetMethods:
    """Serves Commit and Revert."""

    def __init__(
        self,
        committer: GroupCommitter,
        store: RouteStore,
        permissions: Permissions | None,
        usage: UsageMethods,
        writes: WriteMeter,
        fair_share: FairShare,
    ) -> None:
        self._committer = committer
        self._store = store
        self._permissions = permissions
        self._usage = usage
        self._writes = writes
        self._fair_share = fair_share

    async def commit(self, request: pb.CommitRequest) -> pb.CommitResponse:
        call, asked = current_call(), change_sets.conditional(request)
        found = await self._usage.refusals(list(asked.values()))
        refusals = dict(zip(asked, found, strict=True))
        command, intent = await in_thread_if_large(
            lambda: (change_sets.commit(request, refusals), convert.intent(_without_dry_run(request), call)),
            len(request.mutations),
        )
        outcome = await self._writes.measured("commit", self._committer.commit(command, intent))
        return await change_sets.commit_response(outcome, await self._changes(outcome), self._fair_share)

    async def revert(self, request: pb.RevertRequest) -> pb.RevertResponse:
        """Serve the method."""
        raise NotImplementedError

    async def _changes(self, outcome: Outcome) -> Sequence[Change]:
        """Return the changes of an outcome, of which a replay has none: from the history, as far as it is kept."""
        if outcome.changes or not outcome.change_count:
            return outcome.changes
        return await self._store.list_changes(change_sets.query_of(outcome))


def _without_dry_run(request: pb.CommitRequest) -> pb.CommitRequest:
    """Return the request whose answer a dry run asks for: after it, with its id, there is the answer of a replay."""
    if not request.dry_run:
        return request
    wet = pb.CommitRequest()
    wet.CopyFrom(request)
    wet.dry_run = False
    return wet
