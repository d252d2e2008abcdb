"""``pointsman-server policy``: check the policy file, and explain its decisions."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pointsman_server.cli.common import fail, read_settings
from pointsman_server.domain.grants import parse_grant
from pointsman_server.domain.identity import (
    SUBJECT_PREFIXES,
    Credential,
    Grant,
    Identity,
    Permission,
    Scope,
    credential_of,
)

if TYPE_CHECKING:
    from pointsman_server.auth.permissions import Explanation, Policy

Subject = Annotated[
    str, typer.Option("--as", help="The caller, such as jwt:alice, key:ci, spiffe://… or dns:…", metavar="SUBJECT")
]
Can = Annotated[
    str, typer.Option("--can", help="A permission or a method, such as routes.read or Resolve.", metavar="PERMISSION")
]
On = Annotated[
    str,
    # Escaped, because help texts are marked up, and [/ would close what was never opened.
    typer.Option("--on", help=r"tenant\[/service\[/env]]; * or nothing is all of them.", metavar="WHERE"),
]
Claims = Annotated[
    list[str] | None, typer.Option("--claim", help="A claim of the caller's JWT, name=value; may be repeated.")
]
File = Annotated[Path | None, typer.Option("--policy", help="Another file than POINTSMAN_POLICY_FILE.")]
Grants = Annotated[
    list[str] | None,
    typer.Option("--grant", help="A grant of the caller's credential, role:tenant[:env]; may be repeated."),
]


def explain(
    *,
    subject: Subject,
    can: Can,
    on: On,
    claim: Claims = None,
    policy: File = None,
    grant: Grants = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say whether somebody may do something, and what each rule has to do with it.

    Ends with 0 when it is allowed, with 1 when it is denied, and with 2 when the question or the policy is wrong.
    """
    from pointsman_server.auth.permissions import Permissions

    try:
        identity = Identity(subject, _credential(subject), _grants(grant), _claims(claim))
        permission, scope = _permission(can), _scope(on)
    except ValueError as error:
        fail(str(error), code=2)
    rules = _policy(policy)
    explanation = Permissions(lambda: rules).explain(identity, permission, scope)
    typer.echo((_json if as_json else _text)(identity, permission, scope, explanation))
    raise typer.Exit(0 if explanation.allowed else 1)


def check(
    file: Annotated[Path | None, typer.Argument(help="Another file than POINTSMAN_POLICY_FILE.")] = None,
) -> None:
    """Say whether a policy is fine. Ends with 1 when it is not, and names every rule and key that is wrong."""
    from pointsman_server.adapters.files.policy import PolicyError, read_policy

    path = file or read_settings().policy_file
    if path is None:
        fail("there is no policy to check: name a file, or set POINTSMAN_POLICY_FILE", code=2)
    try:
        rules = read_policy(path).rules
    except PolicyError as error:
        fail(str(error))
    typer.echo(f"{path} is fine: {len(rules)} {'rule' if len(rules) == 1 else 'rules'}")


def _policy(file: Path | None) -> "Policy":
    from pointsman_server.adapters.files.policy import PolicyError, read_policy
    from pointsman_server.auth.permissions import Policy

    path = file or read_settings().policy_file
    try:
        return read_policy(path) if path else Policy()
    except PolicyError as error:
        fail(str(error), code=2)


def _credential(subject: str) -> Credential:
    credential = credential_of(subject)
    if credential is None:
        raise ValueError(f"--as {subject!r} is no subject: it begins with {', '.join(SUBJECT_PREFIXES)}")
    return credential


def _permission(text: str) -> Permission:
    from pointsman_server.rpc.interceptors.method_permissions import METHODS

    if text in set(Permission):
        return Permission(text)
    if text in METHODS:
        return METHODS[text].permission
    known = f"a permission ({', '.join(Permission)}) nor a method ({', '.join(METHODS)})"
    raise ValueError(f"--can {text!r} is neither {known}")


def _scope(text: str) -> Scope:
    parts = ["" if part == "*" else part for part in text.split("/")]
    if len(parts) > 4 or ("" in text.split("/")):
        raise ValueError(f"--on {text!r} is no tenant[/service[/env]]: write * for all of them")
    return Scope(parts[0], parts[2] if len(parts) > 2 else "")


def _grants(texts: list[str] | None) -> tuple[Grant, ...]:
    return tuple(parse_grant(text) for text in texts or ())


def _claims(texts: list[str] | None) -> dict[str, object]:
    claims: dict[str, list[str]] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise ValueError(f"--claim {text!r} is no name=value")
        claims.setdefault(name, []).append(value)
    return dict(claims)


def _text(identity: Identity, permission: Permission, scope: Scope, explanation: "Explanation") -> str:
    verdict = "allowed" if explanation.allowed else "denied"
    lines = [f"{verdict}: {identity.subject}, {permission} in {scope.tenant or '*'}/*/{scope.env or '*'}"]
    lines += [f"  {'yes' if reason.allows else 'no '} {reason.source}: {reason.why}" for reason in explanation.reasons]
    if not explanation.reasons:
        lines.append("  no  there is no policy, and the credential grants nothing")
    return "\n".join(lines)


def _json(identity: Identity, permission: Permission, scope: Scope, explanation: "Explanation") -> str:
    answer = {
        "allowed": explanation.allowed,
        "subject": identity.subject,
        "permission": permission,
        "tenant": scope.tenant,
        "env": scope.env,
        "reasons": [
            {"source": reason.source, "allows": reason.allows, "why": reason.why} for reason in explanation.reasons
        ],
    }
    return json.dumps(answer)
