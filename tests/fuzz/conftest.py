"""``fuzz("name")`` runs a target within its budget."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.fuzz import harness

Fuzz = Callable[..., None]


@pytest.fixture
def fuzz(record_property: Callable[[str, object], None]) -> Fuzz:
    """Run a target on as many inputs as its budget says, always the same, and report how many they were."""

    def fuzz(name: str, check: Callable[[Any], None] | None = None) -> None:
        ran = harness.run(name, harness.Extent(harness.BUDGETS[name]), check=check)
        record_property(harness.PROPERTY, ran)
        assert ran >= harness.BUDGETS[name], f"only {ran} inputs of {harness.BUDGETS[name]}"

    return fuzz
