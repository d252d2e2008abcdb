"""Whose a stream is."""

from typing import Protocol

from pointsman_server.domain.identity import Scope


class Caller(Protocol):
    """Who has opened a stream, and what they may do now: both may change while it is open."""

    @property
    def subject(self) -> str:
        """Who the caller is authenticated as."""

    def may_read(self, scope: Scope) -> bool:
        """Return whether the caller may read a tenant and env."""

    async def verify(self) -> bool:
        """Verify the credential again. Returns whether what the caller may read may have changed.

        Raises where the stream must end.
        """
