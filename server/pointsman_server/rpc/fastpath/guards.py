"""The checks of a caller that the interceptor chain makes, in one step and without an error."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from pointsman_server.auth.authenticator import Authenticator
from pointsman_server.auth.permissions import Permissions
from pointsman_server.domain.errors import PointsmanError
from pointsman_server.domain.identity import ANONYMOUS, Identity, Permission, Scope
from pointsman_server.rpc.interceptors.admission import Admission
from pointsman_server.rpc.interceptors.authentication import AUTHORIZATION
from pointsman_server.runtime.rate_limiter import Limits

Metadata = Iterable[tuple[str, str | bytes]]


@dataclass(frozen=True, slots=True)
class Guards:
    """Checks of reads: each part is the one that the interceptors use, or None where that is off."""

    admission: Admission
    authenticator: Authenticator | None = None
    permissions: Permissions | None = None
    limits: Limits = field(default_factory=Limits)

    def let_in(
        self, metadata: Callable[[], Metadata | None], tenants: Sequence[str], scopes: Iterable[Scope]
    ) -> Identity | None:
        """Return the caller if a call about these keys may be served, and count it against the rate limits.

        ``tenants`` has the tenant of each key, ``scopes`` each scope once. On None the interceptor chain
        serves or refuses the call: also for a client certificate, and a credential that was not verified lately.
        """
        if self.admission.closed:
            return None
        identity = _recalled(self.authenticator, metadata() or ()) if self.authenticator else ANONYMOUS
        if identity is None:
            return None
        try:
            if self.permissions is not None:
                for scope in scopes:
                    self.permissions.check(identity, Permission.READ, scope)
            self._count(identity.subject, tenants)
        except PointsmanError:
            return None
        return identity

    def _count(self, subject: str, tenants: Sequence[str]) -> None:
        """Count a call against both limits, or against none. Raises RateLimited."""
        by_identity, by_tenant = self.limits.identity, self.limits.tenant
        if by_identity is not None:
            by_identity.take(subject, len(tenants))
        if by_tenant is None:
            return
        try:
            if len(tenants) == 1:
                by_tenant.take(tenants[0])
            else:
                by_tenant.take_all(Counter(tenants))
        except PointsmanError:
            if by_identity is not None:
                # The chain counts the call again.
                by_identity.give_back(subject, len(tenants))
            raise


def _recalled(authenticator: Authenticator, metadata: Metadata) -> Identity | None:
    headers = [value for name, value in metadata if name == AUTHORIZATION]
    return authenticator.recall(headers[0]) if len(headers) == 1 and isinstance(headers[0], str) else None
