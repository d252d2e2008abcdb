"""app.xds.caller: whether what a caller may read may have changed."""

from dataclasses import replace
from types import SimpleNamespace

from pointsman_server.app.xds.caller import GrpcCaller
from pointsman_server.auth.permissions import Permissions, Policy, Rule
from pointsman_server.domain.grants import parse_grant
from pointsman_server.domain.identity import Credential, Identity, Pattern, Scope

IDENTITY = Identity("key:checkout", Credential.API_KEY, grants=(parse_grant("reader:acme"),))


class Scene:
    """A stream that is open; verifying its credential again gives ``identity``."""

    def __init__(self) -> None:
        self.identity, self.policy = IDENTITY, Policy()
        self._call = SimpleNamespace(identity=self.identity)
        self.caller = GrpcCaller(self._call, self, Permissions(lambda: self.policy))  # type: ignore[arg-type]

    async def verify(self) -> None:
        self._call.identity = self.identity


async def test_what_is_equal_is_no_change() -> None:
    """As when keys are read again, because another one was made."""
    scene = Scene()
    assert not await scene.caller.verify()
    scene.identity, scene.policy = replace(IDENTITY), Policy()
    assert scene.identity is not IDENTITY
    assert not await scene.caller.verify()


async def test_other_grants_and_another_policy_are_told_once() -> None:
    scene = Scene()
    scene.identity = replace(IDENTITY, grants=(parse_grant("reader:other"),))
    assert [await scene.caller.verify() for _ in range(2)] == [True, False]
    assert scene.caller.may_read(Scope("other", "prod"))
    assert not scene.caller.may_read(Scope("acme", "prod"))
    scene.policy = Policy((Rule("1", (parse_grant("reader:acme"),), subjects=(Pattern("*"),)),))
    assert [await scene.caller.verify() for _ in range(2)] == [True, False]
    assert scene.caller.may_read(Scope("acme", "prod"))
