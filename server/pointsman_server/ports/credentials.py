"""Credentials: how each kind is verified, and where API keys are stored."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from pointsman_server.domain.api_keys import ApiKey, Minted
from pointsman_server.domain.identity import Grant, Identity


class CredentialVerifier(Protocol):
    """Tells who shows a credential: the issuer's tokens and our API keys have one each.

    It checks against what it holds in memory (``refreshing``) and keeps no event loop busy with I/O.
    """

    async def verify(self, credential: str) -> Identity:
        """Return who shows ``credential``. Raises Unauthenticated, and AccessUnavailable while nothing was read yet.

        When the credential names a key that is not known, this may wait for one renewal of what is known; floods of
        unknown names cause no more of them than one does.
        """

    @property
    def version(self) -> int:
        """Another number whenever something that was valid may be so no more: memories of older ones are void."""


@dataclass(frozen=True, slots=True)
class KeyDraft:
    """A key to be made: who makes it, what it grants, and how long it lives; None is for ever."""

    name: str
    grants: tuple[Grant, ...]
    created_by: str
    lifetime: timedelta | None


class KeyNameTaken(Exception):
    """A living key has the name."""


class KeyNotFound(Exception):
    """No living key has the name or the id."""


class ApiKeyStore(Protocol):
    """All API keys. It keeps digests of secrets and never a secret.

    At most one key of a name is its current one: it lives, or no newer one took its place. Keys are ordered by name,
    those of one name by age. Every method raises StoreUnavailable and Overloaded as those of RouteStore do.
    """

    async def known(self) -> list[ApiKey]:
        """Read all living keys, and those that ended less than 30 days ago, so that callers can be told."""

    async def create(self, draft: KeyDraft, minted: Minted) -> ApiKey:
        """Add a key. Raises KeyNameTaken while another key of the name is neither expired nor revoked."""

    async def rotate(self, draft: KeyDraft, minted: Minted, overlap: timedelta) -> ApiKey:
        """Add a key in the place of the current one of the name, which ends after ``overlap`` if not before.

        The grants are those of the current key; the draft's do not count. Raises KeyNotFound when none lives.
        """

    async def revoke(self, name_or_id: str, by: str) -> list[ApiKey]:
        """End every living key of the name, or the one of the id, now and for ever.

        Raises KeyNotFound when none lives.
        """
