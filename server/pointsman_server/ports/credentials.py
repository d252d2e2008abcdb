"""Credentials: how each kind is verified, and where API keys are stored."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from pointsman_server.domain.api_keys import ApiKey, Minted
from pointsman_server.domain.identity import Grant, Identity


class CredentialVerifier(Protocol):
    """Verifies one kind of credential: jwts of issuers, or API keys.

    It checks against data in memory, which is refreshed in the background (``runtime.refreshed``).
    """

    async def verify(self, credential: str) -> Identity:
        """Return the identity of the caller. Raises Unauthenticated, and AccessUnavailable before the first refresh.

        If the credential names an unknown key, this may wait for one refresh. Many unknown names do not cause more
        refreshes than one does.
        """

    @property
    def version(self) -> int:
        """Increments when a valid credential may have become invalid: discard results cached under older versions."""


@dataclass(frozen=True, slots=True)
class KeyDraft:
    """A key to create: its creator, its grants, and its lifetime; None means that it does not expire."""

    name: str
    grants: tuple[Grant, ...]
    created_by: str
    lifetime: timedelta | None


class KeyNameTaken(Exception):
    """A valid key has the name."""


class KeyNotFound(Exception):
    """No valid key has the name or the id."""


class ApiKeyStore(Protocol):
    """The API keys: digests of their secrets, not the secrets.

    At most one key of a name is current: the valid one that no newer key has replaced. Keys are ordered by name, those
    of one name by age. Every method raises StoreUnavailable and Overloaded as those of RouteStore do.
    """

    async def known(self) -> list[ApiKey]:
        """Read all valid keys, and those that ended less than 30 days ago, so that errors can say that they ended."""

    async def create(self, draft: KeyDraft, minted: Minted) -> ApiKey:
        """Add a key. Raises KeyNameTaken while another key of the name is neither expired nor revoked."""

    async def rotate(self, draft: KeyDraft, minted: Minted, overlap: timedelta) -> ApiKey:
        """Add a key that replaces the current one of the name, which ends after ``overlap`` if not before.

        The grants are those of the current key; those of the draft are ignored. Raises KeyNotFound if none is valid.
        """

    async def revoke(self, name_or_id: str, by: str) -> list[ApiKey]:
        """End every valid key of the name, or the one of the id, permanently. Returns them.

        Raises KeyNotFound if none is valid.
        """
