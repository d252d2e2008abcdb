"""xds explain: what clients are sent for a name."""

import json

import pytest

from pointsman.v1 import xds_service_pb2 as pb
from tests.support.fake_xds_service import FakeXdsService
from tests.unit.client.conftest import Run


@pytest.fixture(autouse=True)
def _explanation(fake: FakeXdsService) -> None:
    each = fake.explanation.explanations.add(
        kind=pb.XDS_CLIENT_KIND_GRPC, status=9, reason="gRPC clients send no path", limitations=["the path /api"]
    )
    each.resources.add().update({"name": "v1~c~b~a", "type": "Listener"})
    fake.explanation.explanations.add(kind=pb.XDS_CLIENT_KIND_ENVOY, reason="it is live")


def test_says_of_both_kinds_what_calls_get_and_why(run: Run) -> None:
    done = run("xds", "explain", "a/b/c/v1")
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "name      v1~c~b~a",
        "as of     revision 7",
        "",
        "gRPC clients",
        "calls     end with FAILED_PRECONDITION",
        "why       gRPC clients send no path",
        "but       the path /api",
        "",
        "Envoy",
        "calls     pass",
        "why       it is live",
    ]


def test_one_kind_with_its_resources(run: Run, fake: FakeXdsService) -> None:
    lines = run("xds", "explain", "a/b/c/v1", "--kind", "grpc", "--resources").stdout.splitlines()
    assert "Envoy" not in lines
    assert json.loads("\n".join(lines[lines.index("{") :])) == {"name": "v1~c~b~a", "type": "Listener"}
    assert fake.requests[0][0].kind == pb.XDS_CLIENT_KIND_GRPC


@pytest.mark.parametrize(
    ("key", "sent"),
    [
        ("a/b/c", "a/b/c"),
        ("v1~c~b~a", "v1~c~b~a"),
        ("xds:///v1~c~b~a", "v1~c~b~a"),
        ("xds://pointsman/c~b~a", "c~b~a"),
        ("xds:c~b~a", "c~b~a"),
    ],
)
def test_a_key_may_be_written_as_clients_do(run: Run, fake: FakeXdsService, key: str, sent: str) -> None:
    run("xds", "explain", key)
    assert fake.requests[0][0].key == sent


def test_the_kinds_are_those_of_clients(run: Run) -> None:
    done = run("xds", "explain", "a/b/c", "--kind", "unknown")
    assert done.exit_code == 2
    assert "'unknown' is not one of 'grpc', 'envoy'" in done.stderr


def test_the_first_server_that_answers_is_asked(run: Run, fake: FakeXdsService) -> None:
    done = run("--timeout", "1", "xds", "explain", "a/b/c", "--xds", f"127.0.0.1:1,{fake.target}")
    assert (done.exit_code, len(fake.requests)) == (0, 1)
    done = run("--timeout", "1", "xds", "explain", "a/b/c", "--xds", "127.0.0.1:1,127.0.0.1:2")
    assert done.exit_code == 5
    assert "error: xDS on 127.0.0.1:2: " in done.stderr


def test_json_has_the_resources_if_they_are_asked_for(run: Run) -> None:
    document = json.loads(run("xds", "explain", "a/b/c/v1", "--json").stdout)
    assert document == {
        "key": "a/b/c/v1",
        "name": "v1~c~b~a",
        "revision": 7,
        "explanations": [
            {
                "kind": "grpc",
                "status": "FAILED_PRECONDITION",
                "reason": "gRPC clients send no path",
                "limitations": ["the path /api"],
            },
            {"kind": "envoy", "status": "OK", "reason": "it is live", "limitations": []},
        ],
    }
    document = json.loads(run("xds", "explain", "a/b/c/v1", "--json", "--resources").stdout)
    assert document["explanations"][0]["resources"] == [{"name": "v1~c~b~a", "type": "Listener"}]
