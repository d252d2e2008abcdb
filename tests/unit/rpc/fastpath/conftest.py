"""What the tests of the fast path share."""

import pytest

from pointsman_server.rpc import refusal


@pytest.fixture(autouse=True)
def no_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let two refusals for one error be equal: their delays are not spread."""
    monkeypatch.setattr(refusal.random, "random", lambda: 0.0)
