"""Settings for tests of the settings: some that go together, and the problems that ``load`` finds."""

import pytest

from pointsman_server.config.environment import load
from pointsman_server.config.rules import SettingsError

DATABASE_URL = "postgresql://pointsman:canary@db.internal:5432/routes"
TLS = {"POINTSMAN_TLS_CERT_FILE": "c", "POINTSMAN_TLS_KEY_FILE": "k"}
TOKENS = {"POINTSMAN_JWT_ISSUER": "i", "POINTSMAN_JWT_AUDIENCE": "a", "POINTSMAN_JWT_JWKS_FILE": "f"}


def problems(environ: dict[str, str], **flags: object) -> tuple[str, ...]:
    """Load, and return what is wrong; fails if nothing is."""
    with pytest.raises(SettingsError) as caught:
        load(environ, flags)
    return caught.value.problems


def problem(environ: dict[str, str], **flags: object) -> str:
    """Load, and return the one thing that is wrong."""
    (line,) = problems(environ, **flags)
    return line
