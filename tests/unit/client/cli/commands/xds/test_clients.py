"""xds clients: who is connected, and what they refused."""

import json

from pointsman.v1 import xds_service_pb2 as pb
from tests.support.fake_xds_service import T0, FakeXdsService, serving
from tests.unit.client.conftest import Run


def test_is_a_table_and_refusals_in_words(run: Run, fake: FakeXdsService) -> None:
    fake.add("web-1", names=[f"v{number}~c~b~a" for number in range(5)])
    behind = fake.add("edge\x1b", kind=pb.XDS_CLIENT_KIND_ENVOY, acknowledged_revision=3, user_agent="envoy 1.39")
    behind.refusals.add(resource_type="CDS", message="bad cluster\n").refuse_time.seconds = T0
    fake.add("new", acknowledged_revision=0)
    done = run("xds", "clients")
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows[0] == ["SERVER", "NODE", "KIND", "AGENT", "SUBJECT", "ADDRESS", "SINCE", "REVISION", "NAMES"]
    assert rows[1][:3] == [fake.target, "web-1", "grpc"]
    assert rows[1][-7:] == ["7", "v0~c~b~a", "v1~c~b~a", "v2~c~b~a", "and", "2", "more"]
    assert rows[2][1:3] == ["edge\\x1b", "envoy"]
    assert rows[2][-3:] == ["3", "of", "7"]
    assert rows[3][-3:] == ["none", "of", "7"]
    assert done.stdout.splitlines()[4] == "edge\\x1b refused CDS at 2023-11-14 22:13:20Z: bad cluster\\n"
    assert done.stderr == f"{fake.target}: 3 clients, at revision 7\n"


def test_nobody_is_said_in_words(run: Run, fake: FakeXdsService) -> None:
    done = run("xds", "clients")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", f"{fake.target}: 0 clients, at revision 7\n")


def test_only_those_of_a_name(run: Run, fake: FakeXdsService) -> None:
    fake.add("one", names=["v1~c~b~a"])
    fake.add("two", names=["v2~c~b~a"])
    done = run("xds", "clients", "--name", "v2~")
    assert "two" in done.stdout
    assert "one" not in done.stdout
    assert "1 client," in done.stderr


def test_json_has_all_of_it(run: Run, fake: FakeXdsService) -> None:
    client = fake.add("web-1", names=["v1~c~b~a"])
    client.refusals.add(resource_type="CDS", message="no").refuse_time.seconds = T0
    assert json.loads(run("xds", "clients", "--json").stdout) == {
        "servers": [
            {
                "server": fake.target,
                "revision": 7,
                "workers": 1,
                "workers_answered": 1,
                "clients": [
                    {
                        "id": "0",
                        "node_id": "web-1",
                        "user_agent": "gRPC C-core linux 1.85.3",
                        "kind": "grpc",
                        "address": "127.0.0.1:4242",
                        "subject": "anonymous",
                        "connect_time": "2023-11-14T22:13:20+00:00",
                        "acknowledged_revision": 7,
                        "names": ["v1~c~b~a"],
                        "name_count": 1,
                        "refusals": [
                            {"resource_type": "CDS", "message": "no", "refuse_time": "2023-11-14T22:13:20+00:00"}
                        ],
                    }
                ],
            }
        ]
    }


def test_several_servers_are_asked_and_those_that_fail_are_told(run: Run, fake: FakeXdsService) -> None:
    fake.add("web-1")
    with serving(FakeXdsService()) as other:
        other.add("web-2")
        done = run("--timeout", "1", "xds", "clients", "--xds", fake.target, "--xds", f"127.0.0.1:1,{other.target}")
    assert done.exit_code == 5
    assert [line.split()[:2] for line in done.stdout.splitlines()[1:]] == [
        [fake.target, "web-1"],
        [other.target, "web-2"],
    ]
    assert "error: xDS on 127.0.0.1:1: " in done.stderr


def test_of_two_servers_that_fail_both_are_named(run: Run) -> None:
    done = run("--timeout", "1", "xds", "clients", "--xds", "127.0.0.1:1", "--xds", "127.0.0.1:2", "--json")
    assert done.exit_code == 5
    assert done.stdout == ""
    error = json.loads(done.stderr)["error"]
    assert "127.0.0.1:1" in error["message"]
    assert any("127.0.0.1:2" in note for note in error["notes"])


def test_of_a_server_with_several_workers_each_is_asked(run: Run, fake: FakeXdsService) -> None:
    fake.worker_count, fake.workers = 2, ["a", "a", "a", "b", "a"]
    fake.add("of-a").id = "a-1"
    fake.add("of-b").id = "b-1"
    done = run("xds", "clients")
    assert [line.split()[1] for line in done.stdout.splitlines()[1:]] == ["of-a", "of-b"]
    assert done.stderr == f"{fake.target}: 2 clients, at revision 7\n"
    assert len(fake.requests) == 4


def test_workers_that_do_not_answer_are_told(run: Run, fake: FakeXdsService) -> None:
    fake.worker_count, fake.workers = 3, ["a", "b"]
    done = run("xds", "clients")
    warning = f"warning: {fake.target}: 2 of 3 workers answered; the clients of the others are not listed\n"
    assert (done.exit_code, done.stderr) == (0, f"{fake.target}: 0 clients, at revision 7\n{warning}")
    fake.workers = ["a", "b"]
    (server,) = json.loads(run("xds", "clients", "--json").stdout)["servers"]
    assert (server["workers"], server["workers_answered"]) == (3, 2)
