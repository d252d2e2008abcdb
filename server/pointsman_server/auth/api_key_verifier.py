"""Verifies API keys against all keys, held in memory: a ``ports.credentials.CredentialVerifier``."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pointsman_server.domain import api_keys
from pointsman_server.domain.access_errors import Unauthenticated
from pointsman_server.domain.api_keys import ApiKey
from pointsman_server.domain.errors import PointsmanError
from pointsman_server.domain.identity import Credential, Identity
from pointsman_server.ports.credentials import ApiKeyStore
from pointsman_server.runtime.refreshed import Refreshed, RefreshFailed

# An unknown key triggers a reload at most this often, in seconds: a new key works soon after it was created.
LEAST_PAUSE_SECONDS = 1.0


@dataclass(frozen=True)
class KnownKeys:
    """The keys by id, and the ids of those that were revoked or expired at the load: an end makes a different value."""

    by_id: dict[str, ApiKey]
    ended: frozenset[str]

    @classmethod
    def of(cls, keys: Iterable[ApiKey], now: float) -> "KnownKeys":
        """Index ``keys`` as of ``now``, in seconds since the Unix epoch."""
        by_id = {key.id: key for key in keys}
        return cls(by_id, frozenset(key.id for key in by_id.values() if key.revoked_at or key.expired(now)))


class ApiKeyVerifier:
    """Verifies API keys without I/O, against the keys that it loads from ``store`` every ``interval`` seconds.

    So a revoked key is refused by every server within ``interval`` plus one load. ``now`` returns seconds since the
    Unix epoch; ``on_result`` is called after each load with whether it succeeded.
    """

    def __init__(
        self,
        store: ApiKeyStore,
        *,
        interval: float,
        on_result: Callable[[bool], None] = lambda _well: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._now = now
        self.known: Refreshed[KnownKeys] = Refreshed(
            "the API keys",
            self._load,
            interval=interval,
            least_pause=min(interval, LEAST_PAUSE_SECONDS),
            on_result=on_result,
        )

    @property
    def version(self) -> int:
        """Increments when a key is added, changes, expires or is revoked."""
        return self.known.version

    async def verify(self, credential: str) -> Identity:
        try:
            key_id, secret = api_keys.parse(credential)
        except ValueError:
            raise _refused("malformed", "this is not a whole API key: copy all of it") from None
        key = await self._find(key_id)
        if key is None:
            raise _refused("unknown key", "this API key is not known: ask your operator for another")
        # First: only the holder of the secret learns whether the key was revoked or has expired.
        if not key.has_secret(secret):
            raise _refused("secret", "the secret of this API key is wrong: copy all of it")
        if key.revoked_at:
            raise _refused("revoked", f"the API key {key.name} was revoked: ask your operator for another")
        if key.expired(self._now()):
            raise _refused("expired", f"the API key {key.name} has expired: ask your operator for another")
        return key.identity

    def identity_of(self, subject: str) -> Identity | None:
        """Return the identity of the newest valid key that has this subject; None if there is none.

        Raises AccessUnavailable before the first load.
        """
        now = self._now()
        valid = [
            key
            for key in self.known.value.by_id.values()
            if key.identity.subject == subject and not key.revoked_at and not key.expired(now)
        ]
        return max(valid, key=lambda key: key.created_at).identity if valid else None

    async def _find(self, key_id: str) -> ApiKey | None:
        key = self.known.value.by_id.get(key_id)
        if key is None:
            await self.known.renew_for_unknown()
            key = self.known.value.by_id.get(key_id)
        return key

    async def _load(self) -> KnownKeys:
        try:
            return KnownKeys.of(await self._store.known(), self._now())
        except PointsmanError as error:
            raise RefreshFailed(str(error)) from error


def _refused(problem: str, message: str) -> Unauthenticated:
    return Unauthenticated(Credential.API_KEY, problem, message)
