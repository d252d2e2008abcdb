"""Serves Commit and Revert."""

from pointsman.v1 import route_service_pb2 as pb
from pointsman_server.auth.permissions import Permissions
from pointsman_server.ports.store import RouteStore
from pointsman_server.rpc.methods.write_meter import WriteMeter
from pointsman_server.writes.group_commit import GroupCommitter


class ChangeSetMethods:
    """Serves Commit and Revert."""

    def __init__(
        self, committer: GroupCommitter, store: RouteStore, permissions: Permissions | None, writes: WriteMeter
    ) -> None:
        self._committer = committer
        self._store = store
        self._permissions = permissions
        self._writes = writes

    async def commit(self, request: pb.CommitRequest) -> pb.CommitResponse:
        """Serve the method."""
        raise NotImplementedError

    async def revert(self, request: pb.RevertRequest) -> pb.RevertResponse:
        """Serve the method."""
        raise NotImplementedError
