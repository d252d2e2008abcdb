"""Requests on the gRPC port that are no RPCs."""

import pytest
import yaml
from starlette.testclient import TestClient

from pointsman.v1 import route_service_pb2
from pointsman_server.rpc import web


@pytest.fixture
def client() -> TestClient:
    return TestClient(web.application())


def test_an_unknown_path_is_answered_by_a_status(client: TestClient) -> None:
    answer = client.get("/nowhere")

    assert answer.status_code == 404
    assert answer.json() == {"code": 5, "message": "no such path or method: GET /nowhere", "details": []}


def test_a_wrong_method_is_answered_by_the_right_ones(client: TestClient) -> None:
    answer = client.post("/openapi.yaml")

    assert (answer.status_code, answer.json()["code"]) == (405, 12)
    assert "GET" in answer.headers["allow"]


def test_a_path_of_an_rpc_names_its_methods(client: TestClient) -> None:
    answer = client.put("/api/v1/routes")

    assert (answer.status_code, answer.json()["code"], answer.headers["allow"]) == (405, 12, "POST")


def test_a_request_that_is_none_of_json_is_not_found(client: TestClient) -> None:
    assert client.post("/api/v1/routes").status_code == 404


def test_the_openapi_document_has_each_rpc_and_how_to_authenticate(client: TestClient) -> None:
    answer = client.get("/openapi.yaml")

    assert answer.headers["content-type"] == "application/yaml"
    document = yaml.safe_load(answer.text)
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    ids = [operation["operationId"] for operation in operations]
    methods = route_service_pb2.DESCRIPTOR.services_by_name["RouteService"].methods
    assert {f"RouteService_{method.name}" for method in methods} <= set(ids)
    assert len(ids) == len(set(ids))
    assert document["components"]["securitySchemes"] == {"bearer": {"type": "http", "scheme": "bearer"}}
    assert {"default", "200"} <= set(operations[0]["responses"])
