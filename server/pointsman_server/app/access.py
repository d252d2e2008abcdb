"""Makes authentication and permissions from the settings, and keeps policy and keys up to date."""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from pointsman_server.adapters.files.policy import PolicyError, load_policy
from pointsman_server.adapters.postgres.api_key_store import PostgresApiKeyStore
from pointsman_server.adapters.postgres.database import Database
from pointsman_server.app.background import start_task
from pointsman_server.auth.api_key_verifier import ApiKeyVerifier
from pointsman_server.auth.authenticator import Authenticator, limit_of_failures
from pointsman_server.auth.permissions import Permissions, Policy
from pointsman_server.config.settings import Settings
from pointsman_server.runtime.refreshed import Refreshed
from pointsman_server.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from pointsman_server.adapters.jwt.keys import Keys
    from pointsman_server.adapters.jwt.verifier import TokenVerifier


class Access:
    """``authenticator`` and ``permissions`` are None where the settings name no way to authenticate."""

    def __init__(self, settings: Settings, database: Database, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self.policy = self._make_policy()
        self.api_keys = self._make_api_keys(database)
        self._issuer_keys = self._make_issuer_keys()
        self.authenticator = self._make_authenticator() if settings.authenticates else None
        self.permissions = self._make_permissions() if settings.authenticates else None

    async def start(self, stack: AsyncExitStack) -> None:
        """Read the policy and all keys, then read them again and again until ``stack`` closes.

        Raises PolicyError when the policy cannot be read. Keys may be missing: then calls that need them are refused.
        """
        if self.policy:
            await self.policy.renew()
            if self.policy.problem:
                raise PolicyError(self.policy.problem)
            start_task(stack, "policy", self.policy.run())
        for name, keys in self.keys.items():
            await keys.renew()
            start_task(stack, name, keys.run())

    @property
    def keys(self) -> Mapping[str, Refreshed[Any]]:
        """The sets of keys that credentials are checked against, by name."""
        known = {"api keys": self.api_keys and self.api_keys.known, "issuer keys": self._issuer_keys}
        return {name: keys for name, keys in known.items() if keys}

    def _make_policy(self) -> Refreshed[Policy] | None:
        path = self._settings.policy_file
        if path is None:
            return None
        interval, on_result = self._settings.access_refresh_seconds, self._metrics.renewals("policy")
        return Refreshed("the policy", lambda: load_policy(path), interval=interval, on_result=on_result)

    def _make_api_keys(self, database: Database) -> ApiKeyVerifier | None:
        if not self._settings.api_keys:
            return None
        interval, on_result = self._settings.access_refresh_seconds, self._metrics.renewals("api_keys")
        return ApiKeyVerifier(PostgresApiKeyStore(database), interval=interval, on_result=on_result)

    def _make_issuer_keys(self) -> "Refreshed[Keys] | None":
        settings = self._settings
        if not settings.jwt_issuer:
            return None
        # Imported here, because cryptography takes much of a server's memory, and only JWTs need it.
        from pointsman_server.adapters.jwt import key_source
        from pointsman_server.adapters.jwt.keys import parse_keys

        path, url, algorithms = settings.jwt_jwks_file, settings.jwt_jwks_url, settings.jwt_algorithms

        async def load() -> "Keys":
            return parse_keys(await (key_source.read(path) if path else key_source.fetch(url)), algorithms)

        interval = settings.access_refresh_seconds if path else settings.jwt_refresh_seconds
        on_result = self._metrics.renewals("issuer_keys")
        return Refreshed(
            "the keys of the issuer", load, interval=interval, on_result=on_result, source=str(path or url)
        )

    def _make_authenticator(self) -> Authenticator:
        settings, counter = self._settings, self._metrics.authentications
        return Authenticator(
            tokens=self._make_token_verifier(),
            api_keys=self.api_keys,
            certificates=settings.tls_client_ca_file is not None,
            failures=limit_of_failures(settings.auth_failures_per_second),
            checked=lambda kind, outcome: counter.labels(kind, outcome).inc(),
        )

    def _make_token_verifier(self) -> "TokenVerifier | None":
        settings = self._settings
        if self._issuer_keys is None:
            return None
        from pointsman_server.adapters.jwt.verifier import Rules, TokenVerifier

        rules = Rules(
            settings.jwt_issuer,
            settings.jwt_audience,
            settings.jwt_algorithms,
            settings.jwt_leeway_seconds,
            settings.jwt_grants_claim,
        )
        return TokenVerifier(self._issuer_keys, rules)

    def _make_permissions(self) -> Permissions:
        policy, nothing = self.policy, Policy()
        return Permissions(lambda: policy.value if policy else nothing)
