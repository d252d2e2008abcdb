"""The README of the client: its examples run."""

import re
from pathlib import Path

import grpc
import pytest
import yaml

from pointsman.cli.files.entries import Entry, checked
from pointsman.cli.files.route_file import read_route_file
from tests.support.echo_backends import EchoBackend, EchoStub
from tests.support.fake_route_service import FakeServer

README = (Path(__file__).parents[3] / "clients/python/README.md").read_text()
SYNC, ASYNC, TRAFFIC, NEAR_CACHE, CHANNEL = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
(YAML,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("example", [SYNC, ASYNC, TRAFFIC, NEAR_CACHE], ids=["sync", "async", "traffic", "near-cache"])
def test_the_example_runs(server: FakeServer, example: str, capsys: pytest.CaptureFixture[str]) -> None:
    if example is not SYNC:
        server.add("team-a/payments/prod/v2", "https://old.internal")
    exec(example.replace("localhost:50051", server.target), {})  # noqa: S102 - our own page
    printed = {NEAR_CACHE: "https://old.internal", TRAFFIC: "SPLIT ()"}.get(example, "team-a/payments/prod/v2")
    assert printed in capsys.readouterr().out


def test_the_example_of_a_channel_runs(
    server: FakeServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class PaymentsStub:
        def __init__(self, channel: grpc.Channel) -> None:
            self.Pay = EchoStub(channel).unary_unary

    monkeypatch.setenv("POINTSMAN_SERVER", server.target)
    with EchoBackend("paid") as backend:
        exec(CHANNEL, {"PaymentsStub": PaymentsStub, "order": b"7"})  # noqa: S102 - our own page
        assert "StatusCode.NOT_FOUND pointsman team-a/payments/prod/v2: no route" in capsys.readouterr().out
        server.add("team-a/payments/prod/v2", backend.url)
        exec(CHANNEL, {"PaymentsStub": PaymentsStub, "order": b"7"})  # noqa: S102
    assert "paid 7" in capsys.readouterr().out


def test_the_file_of_apply_is_good() -> None:
    assert yaml.safe_load(YAML)
    (entry,) = checked(read_route_file(YAML).entries)
    assert isinstance(entry, Entry)
