"""rpc.transport.choice: which transport serves, and why."""

import pytest

from pointsman_server.rpc.transport.choice import Choice, TransportUnavailable, Wanted, choose

MISSING = "pyvoy is not installed"


def test_auto_is_envoy_where_it_runs() -> None:
    assert choose("auto", missing="") == Choice("envoy", "the fastest that runs here")


def test_auto_is_grpcio_where_envoy_cannot_run_and_says_why() -> None:
    assert choose("auto", missing=MISSING) == Choice("grpcio", f"envoy cannot run: {MISSING}")


@pytest.mark.parametrize("missing", ["", MISSING])
def test_grpcio_is_taken_when_it_is_asked_for(missing: str) -> None:
    assert choose("grpcio", missing=missing).transport == "grpcio"


@pytest.mark.parametrize("wanted", ["envoy"])
def test_what_is_asked_for_is_the_reason(wanted: Wanted) -> None:
    assert choose(wanted, missing="") == Choice("envoy", "POINTSMAN_TRANSPORT asks for it")


def test_envoy_that_cannot_run_is_refused_with_what_is_missing() -> None:
    with pytest.raises(TransportUnavailable, match=MISSING):
        choose("envoy", missing=MISSING)


def test_only_envoy_takes_json() -> None:
    assert "JSON" in choose("envoy", missing="").protocols.split(", but")[0]
    assert choose("grpcio", missing="").protocols == "gRPC, but neither gRPC-Web nor JSON"
