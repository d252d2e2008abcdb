"""The errors of a caller that may not, or not so often. ``rpc.statuses`` has the gRPC status of each."""

from pointsman_server.domain.errors import PointsmanError, RetryLater, decent_name


class Unauthenticated(PointsmanError):
    """The caller sent no credential, or one that was rejected: ``problem`` says why.

    ``credential`` is the kind of the rejected credential, or ``none``; the text never contains any part of it.
    """

    reason = "UNAUTHENTICATED"

    def __init__(self, credential: str, problem: str, message: str) -> None:
        super().__init__(message, {"credential": credential, "problem": problem})
        self.problem = problem


class Forbidden(PointsmanError):
    """The caller may not do this in the ``tenant`` and ``env``, whether or not the route exists."""

    reason = "FORBIDDEN"

    def __init__(self, subject: str, permission: str, tenant: str, env: str) -> None:
        tenant, env = decent_name(tenant), decent_name(env)
        where = f"{tenant or 'all tenants'}/*/{env or '*'}"
        message = f"{subject} has no {permission} in {where}: ask your operator to grant it"
        super().__init__(message, {"permission": permission, "tenant": tenant, "env": env})


class AccessUnavailable(RetryLater):
    """Keys or policy (``what``) have not been loaded since this server started."""

    reason = "ACCESS_UNAVAILABLE"

    def __init__(self, what: str) -> None:
        super().__init__(f"this server cannot check callers yet: it has not read {what}", {"what": what})


class RateLimited(RetryLater):
    """A quota of the caller or of the tenant is used up: ``limit`` names it, as in ``tenant.writes``.

    After exactly ``retry_delay`` seconds the same call is within it.
    """

    reason = "RATE_LIMITED"

    def __init__(self, limit: str, retry_delay: float) -> None:
        super().__init__(f"over the limit {limit}: slow down", {"limit": limit})
        self.retry_delay = retry_delay
