"""A fake of XdsService, and the command line with it as its server."""

from collections.abc import Iterator

import pytest

from tests.support.fake_xds_service import FakeXdsService, serving


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeXdsService]:
    with serving(FakeXdsService()) as servicer:
        monkeypatch.setenv("POINTSMAN_XDS_SERVER", servicer.target)
        yield servicer
