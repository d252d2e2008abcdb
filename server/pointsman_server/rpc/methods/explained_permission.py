"""The part of Explain that says who may have the answer."""

from pointsman.v1 import route_service_pb2 as pb
from pointsman_server.auth.api_key_verifier import ApiKeyVerifier
from pointsman_server.auth.permissions import Explanation, Permissions, Reason
from pointsman_server.domain.access_errors import Forbidden
from pointsman_server.domain.errors import FieldViolation, InvalidField
from pointsman_server.domain.identity import SUBJECT_PREFIXES, Credential, Identity, Permission, Scope, credential_of

NO_KEY = Reason("the API key", allows=False, why="there is no valid API key of this name")
UNCHECKED = Explanation(True, (Reason("the server", allows=True, why="it checks no permissions"),))


class ExplainedPermission:
    """Explains whether a subject may Resolve and Select in a scope.

    ``permissions`` and ``api_keys`` are None where callers, or their API keys, are not checked.
    """

    def __init__(self, permissions: Permissions | None, api_keys: ApiKeyVerifier | None) -> None:
        self._permissions = permissions
        self._api_keys = api_keys

    def explain(self, caller: Identity, subject: str, scope: Scope) -> pb.ExplainResponse.Permission:
        """Explain the permission of ``subject``, of the caller if it is empty.

        Raises Forbidden if the caller asks for another subject and may not read changes in the scope; InvalidField for
        what is no subject.
        """
        if self._permissions is None:
            return _message(subject or caller.subject, UNCHECKED, with_rules=True)
        may_audit = self._may_audit(caller, scope)
        if subject in ("", caller.subject):
            explained = self._permissions.explain(caller, Permission.READ, scope)
            return _message(caller.subject, explained, with_rules=may_audit)
        if not may_audit:
            raise Forbidden(caller.subject, Permission.HISTORY, scope.tenant, scope.env)
        return _message(subject, self._of_another(self._permissions, subject, scope), with_rules=True)

    def _may_audit(self, caller: Identity, scope: Scope) -> bool:
        try:
            if self._permissions:
                self._permissions.check(caller, Permission.HISTORY, scope)
        except Forbidden:
            return False
        return True

    def _of_another(self, permissions: Permissions, subject: str, scope: Scope) -> Explanation:
        credential = credential_of(subject)
        if credential is None:
            rule = f"must begin with {', '.join(SUBJECT_PREFIXES)}: it is the actor of changes, and who reads a route"
            raise InvalidField([FieldViolation("subject", rule)])
        if credential is not Credential.API_KEY:
            # Of a JWT the rest is known to its holder alone. A certificate has no claims.
            claims_known = credential is not Credential.BEARER_TOKEN
            return permissions.explain(Identity(subject, credential), Permission.READ, scope, claims_known=claims_known)
        identity = self._api_keys.identity_of(subject) if self._api_keys else None
        if identity is None:
            explained = permissions.explain(Identity(subject, credential), Permission.READ, scope)
            return Explanation(False, (NO_KEY, *explained.reasons))
        return permissions.explain(identity, Permission.READ, scope)


def _message(subject: str, explained: Explanation, *, with_rules: bool) -> pb.ExplainResponse.Permission:
    rules = [
        pb.ExplainResponse.Rule(source=reason.source, allows=reason.allows, why=reason.why)
        for reason in explained.reasons
    ]
    return pb.ExplainResponse.Permission(
        subject=subject,
        permission=Permission.READ,
        allowed=explained.allowed,
        rules=rules if with_rules else (),
    )
