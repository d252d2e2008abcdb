"""Who has opened a stream of xDS, and what they may read."""

from typing import Any

from pointsman_server.auth.permissions import Permissions, Policy
from pointsman_server.domain.identity import Identity, Permission, Scope
from pointsman_server.rpc.call import Call


class GrpcCaller:
    """The caller of a stream, whose identity is that of its call: another one after a credential was verified again."""

    __slots__ = ("_call", "_context", "_permissions", "_reviewed")

    def __init__(self, call: Call, context: Any, permissions: Permissions | None) -> None:
        """``permissions``: None where every caller may do everything. ``context`` is that of the stages."""
        self._call = call
        self._context = context
        self._permissions = permissions
        self._reviewed = self._decided_by()

    @property
    def subject(self) -> str:
        """Who the caller is authenticated as."""
        return self._call.identity.subject

    def may_read(self, scope: Scope) -> bool:
        """Return whether the caller may read a tenant and env, by the policy of now."""
        permissions = self._permissions
        return permissions is None or permissions.allows(self._call.identity, Permission.READ, scope)

    async def verify(self) -> bool:
        """Verify the credential again. Returns whether what the caller may read may have changed since the last time.

        Raises Unauthenticated, and what else ends a stream.
        """
        await self._context.verify()
        # Mostly the same objects; equal ones after keys or policy were read again for another reason.
        before, self._reviewed = self._reviewed, self._decided_by()
        return self._reviewed != before

    def _decided_by(self) -> tuple[Identity, Policy | None]:
        return self._call.identity, self._permissions.policy if self._permissions else None
