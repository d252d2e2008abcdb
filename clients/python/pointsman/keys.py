"""RouteKey: the name of one route."""

from dataclasses import dataclass
from typing import Self

from pointsman.errors import FieldViolation, InvalidArgument
from pointsman.rules import InvalidKey, split_key


@dataclass(frozen=True, slots=True, order=True)
class RouteKey:
    """Names one route. ``str(key)`` is ``tenant/service/env/version``; ``RouteKey.parse`` reads it back."""

    tenant: str
    service: str
    env: str
    version: str

    def __str__(self) -> str:
        return f"{self.tenant}/{self.service}/{self.env}/{self.version}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``tenant/service/env/version``. Raises InvalidArgument when ``text`` is no such key."""
        try:
            return cls(*split_key(text))
        except InvalidKey as error:
            violation = FieldViolation(error.field, error.description)
            raise InvalidArgument(str(error), reason="INVALID_FIELD", violations=[violation]) from None


def as_key(key: RouteKey | str) -> RouteKey:
    """Return ``key`` itself, or the key that its text names. Raises InvalidArgument when it names none."""
    return key if isinstance(key, RouteKey) else RouteKey.parse(key)
