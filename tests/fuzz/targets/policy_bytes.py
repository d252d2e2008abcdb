"""The policy as bytes of a file: a policy that decides as it explains, or what is wrong, where, and nothing else."""

from pointsman_server.adapters.files.policy import PolicyError, parse_policy
from pointsman_server.auth.permissions import Permissions, Policy
from pointsman_server.domain.access_errors import Forbidden
from pointsman_server.domain.identity import Credential, Identity, Permission, Scope

MODULES = (
    "pointsman_server.adapters.files.policy",
    "pointsman_server.auth.permissions",
    "pointsman_server.domain.grants",
    "tomllib",
)
LONGEST = 2048
FILE = "policy.toml"
GOOD = b'[[grant]]\nsubjects = ["jwt:alice", "key:ci-*"]\nroles = ["reader"]\ntenants = ["a"]\nenvs = ["prod"]\n'
CLAIM = b'[[grant]]\nclaim = "groups"\nvalue = "x"\nroles = ["admin"]\ntenants = ["*"]\n'
SEEDS = (
    *(
        GOOD,
        CLAIM,
        GOOD + CLAIM,
        b"",
        b"grant = 1",
        b"grant = [1]",
        b"\xff",
        b"a" * 2000,
        b"[" * 900,
        b"x = " + b"[" * 900,
    ),
    *(
        GOOD.replace(b"jwt:alice", name)
        for name in (b"alice", b"*", b"jwt:", b"jwt:a b", b"\\u001b[31m", b"spiffe://x/*")
    ),
    *(GOOD.replace(b"envs", name) for name in (b"env", b'"\\u001b[2J"', b"subject")),
    *(
        GOOD.replace(b'["a"]', value)
        for value in (b"[]", b'"a"', b"[1]", b'["**"]', b"{}", b"1979-05-27", b"nan", b"9" * 900)
    ),
    *(CLAIM.replace(b'"x"', value) for value in (b'""', b"1", b"[]", b'"""\nx"""')),
)
WORDS = tuple(
    word.encode()
    for word in (
        "[[grant]]\n",
        "subjects = ",
        "claim = ",
        "value = ",
        "roles = ",
        "tenants = ",
        "envs = ",
        '["*"]',
        "reader",
    )
)
CALLERS = (
    Identity("jwt:alice", Credential.BEARER_TOKEN, claims={"groups": ["x"]}),
    Identity("key:ci-7", Credential.API_KEY),
    Identity("spiffe://x/y", Credential.CERTIFICATE),
)
SCOPES = (Scope("a", "prod"), Scope("b", "dev"), Scope("", ""))


def check(data: bytes) -> None:
    """Read the bytes as a policy, and ask it."""
    try:
        policy = parse_policy(data, FILE)
    except PolicyError as error:
        lines = str(error).split("\n")
        assert all(line.isprintable() for line in lines), "steers the terminal"
        assert all(FILE in line for line in lines), "does not say where"
        return
    assert policy.rules
    for caller in CALLERS:
        for scope in SCOPES:
            _ask(policy, caller, scope)


def _ask(policy: Policy, caller: Identity, scope: Scope) -> None:
    permissions = Permissions(lambda: policy)
    for permission in Permission:
        try:
            permissions.check(caller, permission, scope)
            allowed = True
        except Forbidden:
            allowed = False
        explanation = permissions.explain(caller, permission, scope)
        assert explanation.allowed == allowed == any(reason.allows for reason in explanation.reasons)
        assert len(explanation.reasons) == len(policy.rules)
