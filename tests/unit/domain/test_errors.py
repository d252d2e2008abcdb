"""errors: what an error repeats of what came in."""

import pytest

from pointsman_server.domain.access_errors import Forbidden


def test_a_denial_names_where() -> None:
    error = Forbidden("jwt:alice", "routes.read", "team-a", "")

    assert "routes.read in team-a/*/*" in error.message
    assert error.metadata == {"permission": "routes.read", "tenant": "team-a", "env": ""}


@pytest.mark.parametrize(
    "name", ["https://user:canary@host", "canary\x1b[31m", "c\N{ANGSTROM SIGN}nary", "canary canary"]
)
def test_a_denial_repeats_nothing_that_is_no_name(name: str) -> None:
    error = Forbidden("jwt:alice", "routes.read", name, name)

    assert "in ?/*/?" in error.message
    assert error.metadata == {"permission": "routes.read", "tenant": "?", "env": "?"}
