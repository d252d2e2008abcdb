"""Authorizes calls: refuses those whose caller lacks the permission that the method needs."""

from typing import Any

from prometheus_client import Counter

from pointsman_server.auth.permissions import Permissions
from pointsman_server.domain.access_errors import Forbidden
from pointsman_server.domain.identity import Credential, Identity
from pointsman_server.rpc import HEALTH, REFLECTION
from pointsman_server.rpc.call import Context, current_call
from pointsman_server.rpc.interceptors.method_permissions import NEEDS
from pointsman_server.rpc.interceptors.stage import CallHandler, Method, RequestCheck, Stage, check_requests

# Services whose responses are about the server, not about routes.
UNRESTRICTED = frozenset({HEALTH, *REFLECTION})


def authorize(permissions: Permissions, denied: Counter) -> Stage:
    """Deny calls that are not permitted in every scope of each request; ``denied`` counts by permission.

    The first scope that is not permitted is named, also where others of the request are. Nothing is looked up, so a
    denial is the same, also in time, whether or not there are such routes.
    """

    def stage(method: Method, proceed: CallHandler) -> CallHandler:
        if method.service in UNRESTRICTED:
            return proceed
        need = NEEDS.get(method.service, {}).get(method.name)
        if need is None:
            return _deny_all(method, denied)
        permission, scopes_of, count = need.permission, need.scopes, denied.labels(need.permission)

        def check(request: Any, _context: Context) -> None:
            identity = current_call().identity
            try:
                _refuse_anonymous(identity, permission)
                for scope in scopes_of(request):
                    permissions.check(identity, permission, scope)
            except Forbidden:
                count.inc()
                raise

        if method.response_streaming and not method.request_streaming:
            return check_requests(method, _rechecked(proceed, check), check)
        return check_requests(method, proceed, check)

    return stage


def _rechecked(proceed: CallHandler, check: RequestCheck) -> CallHandler:
    """Check again before each response: the policy may change while a stream is open."""

    async def handle(request: Any, context: Any) -> Any:
        context.access.append(lambda: check(request, context))
        return await proceed(request, context)

    return handle


def _refuse_anonymous(identity: Identity, permission: str) -> None:
    # With authentication on no caller is anonymous. If one is, that is a bug, which must not permit everything.
    if identity.credential is Credential.NONE:
        raise Forbidden(identity.subject, permission, "", "")


def _deny_all(method: Method, denied: Counter) -> CallHandler:
    count = denied.labels("unlisted")

    async def handle(_request: Any, _context: Context) -> Any:
        count.inc()
        raise Forbidden(current_call().identity.subject, f"permission for {method.name}", "", "")

    return handle
