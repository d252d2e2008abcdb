"""What the short way of a call asks of every caller: as the stages do, but in one step, and without an error."""

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
    """Who is let in to read: each part is the one that the stages use, or None where that is off."""

    admission: Admission
    authenticator: Authenticator | None = None
    permissions: Permissions | None = None
    limits: Limits = field(default_factory=Limits)

    def let_in(self, metadata: Callable[[], Metadata | None], tenants: Sequence[str], scopes: Iterable[Scope]) -> bool:
        """Say whether a call about these keys goes on, and count it against the limits if so.

        ``tenants`` has that of each key, ``scopes`` each scope once. A client certificate is not looked at here, nor a
        credential that is not remembered: those calls go the long way.
        """
        if self.admission.closed:
            return False
        identity = _recalled(self.authenticator, metadata() or ()) if self.authenticator else ANONYMOUS
        if identity is None:
            return False
        try:
            if self.permissions is not None:
                for scope in scopes:
                    self.permissions.check(identity, Permission.READ, scope)
            self._count(identity, tenants)
        except PointsmanError:
            return False
        return True

    def _count(self, identity: Identity, tenants: Sequence[str]) -> None:
        # Who is over a tenant's limit is counted as a caller once more on the long way, and nobody else is.
        limits = self.limits
        if limits.identity is not None:
            limits.identity.take(identity.subject, len(tenants))
        if limits.tenant is not None:
            if len(tenants) == 1:
                limits.tenant.take(tenants[0])
            else:
                limits.tenant.take_all(Counter(tenants))


def _recalled(authenticator: Authenticator, metadata: Metadata) -> Identity | None:
    headers = [value for name, value in metadata if name == AUTHORIZATION]
    return authenticator.recall(headers[0]) if len(headers) == 1 and isinstance(headers[0], str) else None
