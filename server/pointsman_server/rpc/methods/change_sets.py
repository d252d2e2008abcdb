"""Serves Commit and Revert."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TypeVar

from pointsman.v1 import route_service_pb2 as pb
from pointsman_server.auth.permissions import Permissions
from pointsman_server.domain.access_errors import Forbidden
from pointsman_server.domain.identity import Identity, Permission, Scope
from pointsman_server.domain.routes import Change, RouteKey
from pointsman_server.ports.store import Outcome, RouteStore
from pointsman_server.rpc import change_sets, convert
from pointsman_server.rpc.call import Call, current_call
from pointsman_server.rpc.interceptors.rate_limiting import charge
from pointsman_server.rpc.methods.usage import UsageMethods
from pointsman_server.rpc.methods.write_meter import WriteMeter
from pointsman_server.runtime.fair_share import FairShare
from pointsman_server.runtime.offload import in_thread_if_large
from pointsman_server.writes.group_commit import GroupCommitter
from pointsman_server.writes.revert import Touched, decide_revert, scope_of
from pointsman_server.writes.revert_history import RevertHistory

R = TypeVar("R", pb.CommitRequest, pb.RevertRequest)


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
        self._revert_history = RevertHistory(store)
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
        outcome = await self._writes.measured("revert", self._revert(request, current_call()))
        return await change_sets.revert_response(outcome, await self._changes(outcome), self._fair_share)

    async def _revert(self, request: pb.RevertRequest, call: Call) -> Outcome:
        history = self._revert_history
        if request.change_set_id:
            found = await history.of_set(request.change_set_id, request.epoch)
        else:
            found = await history.of_range(request.first_revision, request.last_revision, request.epoch)
        self._check_permission(call.identity, [each.key for each in found.undone])
        if not found.undone:
            return Outcome(None, found.revision)
        await charge(Counter(each.key.tenant for each in found.undone))
        scope = scope_of(found.undone, convert.intent(_without_dry_run(request), call))
        decide = decide_revert(found.undone, found.epoch, force=request.force)
        try:
            return await self._committer.change_set(scope, decide, dry_run=request.dry_run)
        except Touched as error:
            raise await history.who_changed(error) from None

    def _check_permission(self, identity: Identity, keys: Iterable[RouteKey]) -> None:
        """Raise Forbidden unless the caller may write all of ``keys``.

        It names the tenant and env only to callers who may read changes there: others could ask for any revision, and
        would learn of tenants that they know nothing of.
        """
        if self._permissions is None:
            return
        for scope in [Scope(*parts) for parts in dict.fromkeys((key.tenant, key.env) for key in keys)]:
            try:
                self._permissions.check(identity, Permission.WRITE, scope)
            except Forbidden:
                try:
                    self._permissions.check(identity, Permission.HISTORY, scope)
                except Forbidden:
                    raise Forbidden(identity.subject, Permission.WRITE, "", "") from None
                raise

    async def _changes(self, outcome: Outcome) -> Sequence[Change]:
        """Return the changes of an outcome, of which a replay has none: from the history, as far as it is kept."""
        if outcome.changes or not outcome.change_count:
            return outcome.changes
        return await self._store.list_changes(change_sets.query_of(outcome))


def _without_dry_run(request: R) -> R:
    """Return the request whose answer a dry run asks for: after it, with its id, there is the answer of a replay."""
    if not request.dry_run:
        return request
    wet = type(request)()
    wet.CopyFrom(request)
    wet.dry_run = False
    return wet
