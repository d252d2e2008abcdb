"""RouteKey: the name of one route."""

import re
from dataclasses import dataclass
from typing import Self

from pointsman.errors import FieldViolation, InvalidArgument
from pointsman.rules import KEY_PART, KEY_PART_RULE

_KEY = re.compile("/".join([KEY_PART.pattern] * 4))


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
        parts = text.split("/")
        if _KEY.fullmatch(text):
            return cls(*parts)
        if len(parts) != 4:
            raise _invalid("key", f"{text!r} must be tenant/service/env/version")
        for field, part in zip(("tenant", "service", "env", "version"), parts, strict=True):
            if not KEY_PART.fullmatch(part):
                raise _invalid(f"key.{field}", f"{part!r} {KEY_PART_RULE}")
        return cls(*parts)


def as_key(key: RouteKey | str) -> RouteKey:
    """Return ``key`` itself, or the key that its text names. Raises InvalidArgument when it names none."""
    return key if isinstance(key, RouteKey) else RouteKey.parse(key)


def _invalid(field: str, description: str) -> InvalidArgument:
    violation = FieldViolation(field, description)
    return InvalidArgument(f"{field}: {description}", reason="INVALID_FIELD", violations=[violation])
