"""tracing is on where the settings say so, and refused in words where it cannot be."""

import pytest

from pointsman_server.app.start_errors import exit_code
from pointsman_server.config.settings import Settings
from pointsman_server.telemetry.tracing import activation, exporting, spans
from pointsman_server.telemetry.tracing.activation import TracingMissing, begin_tracing, require_tracing

ON = Settings(tracing=True)


def test_by_default_it_is_off() -> None:
    assert begin_tracing(Settings()) is None
    assert not spans.is_on()


def test_without_the_extra_it_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activation, "NEEDED", ("absent_package.sdk",))
    require_tracing(Settings())
    with pytest.raises(TracingMissing, match=r"pip install 'pointsman-server\[tracing\]'") as caught:
        begin_tracing(ON)
    assert exit_code(caught.value) == 2


async def test_it_is_on_until_it_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    monkeypatch.setattr(exporting.trace, "set_tracer_provider", lambda _provider: None)
    end = begin_tracing(ON)
    assert end is not None
    assert spans.is_on()
    await end()
    assert not spans.is_on()


def test_an_exporter_that_there_is_not_is_refused_like_a_wrong_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "zipkin")
    with pytest.raises(TracingMissing, match="not zipkin"):
        begin_tracing(ON)
    assert not spans.is_on()
