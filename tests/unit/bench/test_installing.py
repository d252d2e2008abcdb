"""What is missing is said, and with what it is left out."""

import pytest

from tests.bench import installing


def test_nothing_is_left_out_when_all_is_there() -> None:
    assert installing.left_out({"h2load": "1.52", "etcd": "3.4"}) == []


def test_what_is_missing_is_named_with_its_package() -> None:
    (text,) = installing.left_out({"h2load": "1.52"})
    assert "etcd" in text
    assert "etcd-server" in text


def test_only_root_on_debian_installs(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(installing.shutil, "which", lambda _: None)
    monkeypatch.setattr(installing.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(installing.subprocess, "run", lambda *_, **__: pytest.fail("nothing may be run"))
    assert installing.available(said.append) == {}
    assert said == ["not installing nghttp2-client etcd-server: that takes root on Debian"]
