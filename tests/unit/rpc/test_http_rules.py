"""rpc.http_rules: the methods of each path of the protos."""

import pytest

from pointsman_server.rpc.http_rules import methods_of

VERSION = "/v1/tenants/a/services/b/envs/c/versions/v1"


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        (VERSION, ["DELETE", "GET", "PATCH", "POST"]),
        (f"{VERSION}:activate", ["POST"]),
        (f"{VERSION}:resolve", ["GET"]),
        (f"{VERSION}:nothing", []),
        (f"{VERSION}/more", []),
        ("/api/v1/routes", ["POST"]),
        ("/api/v1/routes/resolve", ["GET"]),
        ("/api/v1/routes/", []),
        ("/v1/tenants//services/b/envs/c/versions/v1", []),
        ("/", []),
        ("", []),
    ],
)
def test_the_methods_of_a_path_are_those_of_the_protos(path: str, methods: list[str]) -> None:
    assert methods_of(path) == methods
