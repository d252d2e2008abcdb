"""The stage that lets a call through only if its caller may do what it asks for."""

from typing import Any

from prometheus_client import Counter

from pointsman_server.auth.permissions import Permissions
from pointsman_server.domain.errors import Forbidden
from pointsman_server.domain.identity import Credential, Identity
from pointsman_server.rpc import SERVICE
from pointsman_server.rpc import call as calls
from pointsman_server.rpc.call import Context
from pointsman_server.rpc.interceptors.method_permissions import METHODS
from pointsman_server.rpc.interceptors.stage import Handler, Method, Stage


def authorize(permissions: Permissions, denied: Counter) -> Stage:
    """Deny calls of ours that are not permitted in every scope of the request; ``denied`` counts by permission.

    The first scope that is not permitted is named, also where others of the request are. Nothing is looked up, so a
    denial is the same, also in time, whether or not there are such routes. Other services pass, such as health.
    """

    def stage(method: Method, proceed: Handler) -> Handler:
        if method.service != SERVICE:
            return proceed
        need = METHODS.get(method.name)
        if need is None:
            return _deny_all(method, denied)
        permission, scopes_of, count = need.permission, need.scopes, denied.labels(need.permission)

        async def handle(request: Any, context: Context) -> Any:
            identity = calls.current().identity
            try:
                _refuse_anonymous(identity, permission)
                for scope in scopes_of(request):
                    permissions.check(identity, permission, scope)
            except Forbidden:
                count.inc()
                raise
            return await proceed(request, context)

        return handle

    return stage


def _refuse_anonymous(identity: Identity, permission: str) -> None:
    # Where callers are authenticated nobody is anonymous, so this is a mistake of ours: it must not open everything.
    if identity.credential is Credential.NONE:
        raise Forbidden(identity.subject, permission, "", "")


def _deny_all(method: Method, denied: Counter) -> Handler:
    count = denied.labels("unlisted")

    async def handle(_request: Any, _context: Context) -> Any:
        count.inc()
        raise Forbidden(calls.current().identity.subject, f"permission for {method.name}", "", "")

    return handle
