"""rpc.transport.envoy.goaway: the file by which Envoy is asked for GOAWAY."""

from pathlib import Path

from pointsman_server.rpc.transport.envoy import goaway


def test_asking_replaces_the_file(tmp_path: Path) -> None:
    goaway.prepare(tmp_path)
    before = goaway.path(tmp_path).stat().st_ino
    assert goaway.path(tmp_path).read_text() == "0"

    goaway.ask(tmp_path)

    assert goaway.path(tmp_path).read_text() == "1"
    assert goaway.path(tmp_path).stat().st_ino != before
    assert [path.name for path in tmp_path.iterdir()] == ["goaway"]


def test_the_resource_of_the_file_triggers_goaway(tmp_path: Path) -> None:
    monitor, point = goaway.monitor(tmp_path), goaway.shed_point()

    assert monitor["typed_config"]["filename"] == str(goaway.path(tmp_path))
    assert [trigger["name"] for trigger in point["triggers"]] == [monitor["name"]]
