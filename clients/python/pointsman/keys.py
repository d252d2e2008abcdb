"""RouteKey: the name of one route. FamilyKey: the name of all versions of a service in an environment."""

from dataclasses import dataclass
from typing import Self

from pointsman.errors import FieldViolation, InvalidArgument
from pointsman.rules import InvalidKey, split_family, split_key


@dataclass(frozen=True, slots=True, order=True)
class RouteKey:
    """Names one route. ``str(key)`` is ``tenant/service/env/version``; ``RouteKey.parse`` reads it back.

    The key of a change of traffic has an empty version, and its text none.
    """

    tenant: str
    service: str
    env: str
    version: str

    def __str__(self) -> str:
        family = f"{self.tenant}/{self.service}/{self.env}"
        return f"{family}/{self.version}" if self.version else family

    @property
    def family(self) -> "FamilyKey":
        """The key without its version."""
        return FamilyKey(self.tenant, self.service, self.env)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``tenant/service/env/version``. Raises InvalidArgument when ``text`` is no such key."""
        try:
            return cls(*split_key(text))
        except InvalidKey as error:
            raise _invalid(error) from None


@dataclass(frozen=True, slots=True, order=True)
class FamilyKey:
    """Names what a select chooses from: the versions of a service in an environment, which share their traffic.

    ``str(key)`` is ``tenant/service/env``; ``FamilyKey.parse`` reads it back.
    """

    tenant: str
    service: str
    env: str

    def __str__(self) -> str:
        return f"{self.tenant}/{self.service}/{self.env}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``tenant/service/env``. Raises InvalidArgument when ``text`` is no such key."""
        try:
            return cls(*split_family(text))
        except InvalidKey as error:
            raise _invalid(error) from None

    def version(self, version: str) -> RouteKey:
        """Return the key of one of the versions."""
        return RouteKey(self.tenant, self.service, self.env, version)


def as_key(key: RouteKey | str) -> RouteKey:
    """Return ``key`` itself, or the key that its text names. Raises InvalidArgument when it names none."""
    return key if isinstance(key, RouteKey) else RouteKey.parse(key)


def as_family(key: FamilyKey | str) -> FamilyKey:
    """Return ``key`` itself, or the key that its text names. Raises InvalidArgument when it names none."""
    return key if isinstance(key, FamilyKey) else FamilyKey.parse(key)


def as_route_or_family(key: RouteKey | FamilyKey | str) -> RouteKey | FamilyKey:
    """Return the key of a route or of a family that ``key`` is, or that its text names. It is checked in any case.

    Raises InvalidArgument when it names neither.
    """
    text = str(key)
    slashes = text.count("/")
    if slashes not in {2, 3}:
        raise _invalid(InvalidKey("key", f"{text!r} must be tenant/service/env/version or tenant/service/env"))
    return RouteKey.parse(text) if slashes == 3 else FamilyKey.parse(text)


def _invalid(error: InvalidKey) -> InvalidArgument:
    violation = FieldViolation(error.field, error.description)
    return InvalidArgument(str(error), reason="INVALID_FIELD", violations=[violation])
