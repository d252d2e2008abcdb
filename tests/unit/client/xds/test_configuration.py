"""xds.configuration: the bootstrap of this process."""

import json
import os
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from pointsman import xds
from pointsman.xds import AlreadyConfigured

VARIABLE = "GRPC_XDS_BOOTSTRAP_CONFIG"
CALL_CREDENTIALS = "GRPC_EXPERIMENTAL_XDS_BOOTSTRAP_CALL_CREDS"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the environment as it was; begin without anything of ours or of gRPC."""
    for name in (VARIABLE, "GRPC_XDS_BOOTSTRAP", CALL_CREDENTIALS):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name in [name for name in os.environ if name.startswith("POINTSMAN_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    found = {}
    for name in ("ca", "cert", "key", "token", "https"):
        (tmp_path / name).write_text("a.b.c" if name == "token" else name)
        found[name] = str(tmp_path / name)
    return found


def server(content: str) -> dict[str, object]:
    [found] = json.loads(content)["xds_servers"]
    return dict(found)


def test_the_bootstrap_is_in_the_environment_of_grpc() -> None:
    before = dict(os.environ)
    content = xds.configure("pointsman.internal:50052")
    assert before.items() <= os.environ.items()
    assert os.environ[VARIABLE] == content
    assert server(content)["server_uri"] == "pointsman.internal:50052"
    assert json.loads(content)["node"] == {"id": socket.gethostname(), "locality": {}}


def test_credentials_are_those_of_xds_and_otherwise_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    plain_text = object()
    monkeypatch.setattr("pointsman.xds.configuration.insecure_channel_credentials", lambda: plain_text)
    monkeypatch.setattr(grpc, "xds_channel_credentials", lambda fallback: ("xds", fallback))
    assert xds.credentials() == ("xds", plain_text)


def test_by_default_it_is_what_the_environment_says(monkeypatch: pytest.MonkeyPatch, files: dict[str, str]) -> None:
    monkeypatch.setenv("POINTSMAN_SERVER", "pointsman.internal:443")
    monkeypatch.setenv("POINTSMAN_CA_FILE", files["ca"])
    monkeypatch.setenv("POINTSMAN_CERT_FILE", files["cert"])
    monkeypatch.setenv("POINTSMAN_KEY_FILE", files["key"])
    monkeypatch.setenv("POINTSMAN_TOKEN_FILE", files["token"])
    found = server(xds.configure())
    assert found["server_uri"] == "pointsman.internal:50052"
    assert "certificate_file" in str(found["channel_creds"])
    assert found["call_creds"] == [{"type": "jwt_token_file", "config": {"jwt_token_file": files["token"]}}]
    assert os.environ[CALL_CREDENTIALS] == "true"


def test_the_servers_of_xds_have_a_variable_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POINTSMAN_XDS_SERVER", "a:1, b:2")
    content = xds.configure()
    assert [each["server_uri"] for each in json.loads(content)["xds_servers"]] == ["a:1", "b:2"]


@pytest.mark.parametrize("given", ["a:1, b:2", ["a:1", "b:2"], ("a:1", "b:2", "a:1")])
def test_there_may_be_several_servers(given: str | list[str]) -> None:
    assert [each["server_uri"] for each in json.loads(xds.configure(given))["xds_servers"]] == ["a:1", "b:2"]


def test_without_anything_it_is_this_machine() -> None:
    assert server(xds.configure())["server_uri"] == "localhost:50052"


def test_arguments_win_over_the_environment(monkeypatch: pytest.MonkeyPatch, files: dict[str, str]) -> None:
    monkeypatch.setenv("POINTSMAN_XDS_SERVER", "a:1")
    monkeypatch.setenv("POINTSMAN_CA_FILE", files["ca"])
    found = server(xds.configure("b:2", tls=False, node_id="x"))
    assert (found["server_uri"], found["channel_creds"]) == ("b:2", [{"type": "insecure"}])


def test_https_urls_may_have_a_ca_of_their_own(files: dict[str, str]) -> None:
    content = xds.configure("a:1", https_ca_file=files["https"], node_id="x", locality="eu/a")
    assert json.loads(content)["node"] == {
        "id": "x",
        "locality": {"region": "eu", "zone": "a"},
        "metadata": {"pointsman": {"ca_provider": "pointsman_ca"}},
    }


def test_the_same_again_changes_nothing() -> None:
    assert xds.configure("a:1") == xds.configure("a:1")


def test_another_bootstrap_is_refused_whoever_set_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = xds.configure("a:1")
    with pytest.raises(AlreadyConfigured, match="once, with the same arguments"):
        xds.configure("b:2")
    assert os.environ[VARIABLE] == before
    monkeypatch.setenv(VARIABLE, "{}")
    with pytest.raises(AlreadyConfigured, match=r"set to something else, which .* or this program has inherited"):
        xds.configure("a:1")


def test_of_two_threads_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both have looked whether there is another bootstrap before either sets its own."""
    looked = threading.Barrier(2)
    environ = dict(os.environ)

    class Environ(dict[str, str]):
        def __ior__(self, other: Any) -> Any:
            with suppress(threading.BrokenBarrierError):
                looked.wait(0.2)
            self.update(other)
            return self

    monkeypatch.setattr(os, "environ", Environ(environ))
    outcomes: list[str] = []

    def configure(target: str) -> None:
        try:
            outcomes.append(xds.configure(target))
        except AlreadyConfigured:
            outcomes.append("refused")

    threads = [threading.Thread(target=configure, args=(target,)) for target in ("a:1", "b:2")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count("refused") == 1
    assert os.environ[VARIABLE] in outcomes


def test_a_file_that_grpc_would_prefer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRPC_XDS_BOOTSTRAP", "/etc/bootstrap.json")
    with pytest.raises(AlreadyConfigured, match=r"/etc/bootstrap\.json"):
        xds.configure("a:1")
    assert VARIABLE not in os.environ


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"ca_file": "/not/there.pem"}, "/not/there.pem: No such file"),
        ({"https_ca_file": "/not/there.pem"}, "/not/there.pem: No such file"),
        ({"token_file": "/not/there", "tls": False}, "needs TLS"),
        ({"cert_file": "/not/there"}, "belong together"),
        ({"servers": []}, "at least one"),
        ({"servers": ""}, "at least one"),
        ({"servers": "pointsman.internal"}, "must be HOST:PORT: it has no port"),
        ({"servers": ["a:1", "http://b:2"]}, "'http://b:2' must be HOST:PORT"),
        ({"ca_file": ""}, "ca_file is empty"),
        ({"https_ca_file": ""}, "https_ca_file is empty"),
        ({"locality": "a/b/c/d"}, "locality"),
    ],
)
def test_what_cannot_be_used_is_refused_and_nothing_is_set(arguments: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        xds.configure(**arguments)  # type: ignore[arg-type]
    assert VARIABLE not in os.environ


def test_a_token_that_is_in_no_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POINTSMAN_TOKEN", "t-1")
    with pytest.raises(ValueError, match="POINTSMAN_TOKEN_FILE instead of POINTSMAN_TOKEN"):
        xds.configure("a:1")


def test_with_a_certificate_a_token_of_other_clients_is_left_out(
    monkeypatch: pytest.MonkeyPatch, files: dict[str, str]
) -> None:
    """As ``pointsman xds bootstrap`` does."""
    monkeypatch.setenv("POINTSMAN_TOKEN", "canary")
    content = xds.configure("a:1", cert_file=files["cert"], key_file=files["key"])
    assert "call_creds" not in server(content)
    assert "canary" not in content


@pytest.mark.parametrize("content", ["pmk_canary", "a.b.c\n"])
def test_a_token_that_grpc_could_not_send_is_refused(files: dict[str, str], content: str) -> None:
    Path(files["token"]).write_text(content)
    with pytest.raises(ValueError, match=r"gRPC sends a JWT|line end") as caught:
        xds.configure("a:1", tls=True, token_file=files["token"])
    assert "canary" not in str(caught.value)


def test_a_target_that_does_not_tell_where_xds_is_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POINTSMAN_SERVER", "unix:/run/pointsman")
    with pytest.raises(ValueError, match="where is xDS"):
        xds.configure()
    assert xds.configure("a:1")


def test_the_credentials_are_those_of_a_channel() -> None:
    assert isinstance(xds.credentials(), grpc.ChannelCredentials)
