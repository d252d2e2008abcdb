"""JSON and REST on the gRPC port: each RPC by curl, and each kind of error, as ``google.rpc.Status``."""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from pointsman.v1.route_pb2 import RouteKey
from tests.support.bad_tokens import RSA
from tests.support.certificates import Authority, TlsFiles
from tests.support.engines import fresh_database, fresh_redis
from tests.support.issuer import AUDIENCE, ISSUER, jwks
from tests.support.servers import RunningServer, serving, settings
from tests.support.tools import require, tool

URL = "https://payments.internal:8443"
PATIENCE_SECONDS = 30
POLICY = """
[[grant]]
subjects = ["*"]
roles = ["reader"]
tenants = ["*"]
"""


@pytest.fixture(scope="module")
def grpc_server(engines, template_database: str) -> Iterator[RunningServer]:
    """A server on Envoy: grpcio speaks no JSON."""
    with fresh_database(template_database) as database_url:
        redis_url = fresh_redis(engines.urls["REDIS_URL"])
        with serving(settings(transport="envoy", database_url=database_url, redis_url=redis_url)) as server:
            yield server


@dataclass(frozen=True)
class Answer:
    status: int
    body: Any
    content_type: str
    version: str

    @property
    def reasons(self) -> list[str]:
        return [detail["reason"] for detail in self.body["details"] if detail["@type"].endswith("google.rpc.ErrorInfo")]

    def detail(self, kind: str) -> Any:
        (found,) = [detail for detail in self.body["details"] if detail["@type"].endswith(f"google.rpc.{kind}")]
        return found


class Curl:
    """Calls a server by curl."""

    def __init__(self, base: str, *options: str) -> None:
        self.base = base
        self._command = [
            str(require("curl", tool("curl"), "run `make tools`")),
            "-s",
            "--max-time",
            str(PATIENCE_SECONDS),
            *options,
        ]

    def __call__(self, method: str, path: str, body: object = None, *options: str) -> Answer:
        """``body`` is sent as it is when it is text, else as JSON."""
        command = [*self._command, *options, "-X", method, f"{self.base}{path}"]
        command += ["-w", "\n%{http_code} %{http_version} %{content_type}"]
        given = None
        if body is not None:
            command += ["-H", "content-type: application/json", "--data-binary", "@-"]
            given = body if isinstance(body, str) else json.dumps(body)
        done = subprocess.run(command, input=given, capture_output=True, text=True, check=True)
        text, _, written = done.stdout.rpartition("\n")
        status, version, content_type = written.split(" ", 2)
        return Answer(int(status), json.loads(text), content_type, version)


@pytest.fixture
def curl(grpc_server: RunningServer) -> Curl:
    return Curl(f"http://{grpc_server.address}", "--http1.1")


def versions_of(key: RouteKey) -> str:
    return f"/v1/tenants/{key.tenant}/services/{key.service}/envs/{key.env}/versions"


def path_of(key: RouteKey, version: str = "v1") -> str:
    return f"{versions_of(key)}/{version}"


def as_json(key: RouteKey, version: str = "v1") -> dict[str, str]:
    return {"tenant": key.tenant, "service": key.service, "env": key.env, "version": version}


class TestRpcs:
    def test_create_get_and_resolve(self, curl: Curl, key: RouteKey) -> None:
        created = curl("POST", path_of(key), {"url": URL, "labels": {"tier": "gold"}, "active": False})
        assert (created.status, created.content_type) == (200, "application/json")
        route = created.body["route"]
        assert (route["key"], route["url"], route["labels"]) == (as_json(key), URL, {"tier": "gold"})
        assert route["active"] is False  # shown, although it is the default of proto3
        assert isinstance(route["revision"], str)  # int64

        got = curl("GET", path_of(key)).body
        assert (got["route"], got["asOfRevision"]) == (route, route["revision"])
        assert curl("POST", f"{path_of(key)}:activate").body["route"]["active"] is True
        resolved = curl("GET", f"{path_of(key)}:resolve?consistency=CONSISTENCY_FULLY_CONSISTENT").body
        assert (resolved["route"]["url"], resolved["provenance"]["source"]) == (URL, "SOURCE_POSTGRES")

    def test_update_deactivate_and_delete(self, curl: Curl, key: RouteKey) -> None:
        revision = curl("POST", path_of(key), {"url": URL}).body["route"]["revision"]

        updated = curl("PATCH", path_of(key), {"url": f"{URL}/2", "expectedRevision": revision}).body["route"]
        assert (updated["url"], int(updated["revision"])) == (f"{URL}/2", int(revision) + 1)
        assert curl("POST", f"{path_of(key)}:deactivate", {"reason": "over"}).body["route"]["active"] is False
        assert int(curl("DELETE", f"{path_of(key)}?reason=gone").body["revision"]) == int(revision) + 3
        assert curl("GET", path_of(key)).status == 404

    def test_an_exclusive_activation(self, curl: Curl, key: RouteKey) -> None:
        curl("POST", path_of(key, "v1"), {"url": URL})
        curl("POST", path_of(key, "v2"), {"url": URL, "active": False})

        assert curl("POST", f"{path_of(key, 'v2')}:activate", {"exclusive": True}).status == 200

        assert curl("GET", f"{path_of(key, 'v1')}:resolve").reasons == ["ROUTE_INACTIVE"]

    def test_a_select_and_what_was(self, curl: Curl, key: RouteKey) -> None:
        family = path_of(key).rpartition("/versions/")[0]
        revision = curl("POST", path_of(key), {"url": URL}).body["route"]["revision"]
        selected = curl("GET", f"{family}:select?stickyKey=user-1").body
        assert (selected["route"]["url"], selected["choice"]["rule"]) == (URL, "RULE_ONLY_ACTIVE")
        weights = [{"version": "v1", "weight": 10_000}]
        curl("PUT", f"{family}/traffic", {"targets": weights})
        request = {"selections": [{**as_json(key), "stickyKey": "user-1"}]}
        del request["selections"][0]["version"]
        (result,) = curl("POST", "/v1/routes:batchSelect", request).body["results"]
        assert (result["choice"]["rule"], result["choice"]["version"]) == ("RULE_SPLIT", "v1")
        then = curl("GET", f"{family}:select?asOf.revision={revision}").body
        assert then["choice"]["rule"] == "RULE_ONLY_ACTIVE"
        listed = curl("GET", f"{versions_of(key)}?asOf.revision={revision}").body
        assert (len(listed["routes"]), listed["asOfRevision"]) == (1, revision)
        assert curl("GET", f"{path_of(key)}?asOf.revision=1000000").reasons == ["REVISION_IN_FUTURE"]
        changes = curl("GET", f"/v1/changes?tenant={key.tenant}&beforeTime=2020-01-01T00:00:00Z").body["changes"]
        assert changes == []

    def test_lists_and_histories(self, curl: Curl, key: RouteKey) -> None:
        curl("POST", path_of(key, "v1"), {"url": URL})
        curl("POST", path_of(key, "v2"), {"url": URL})

        assert [route["key"]["version"] for route in curl("GET", versions_of(key)).body["routes"]] == ["v1", "v2"]
        page = curl("GET", f"/v1/routes?tenant={key.tenant}&pageSize=1").body
        assert len(page["routes"]) == 1
        rest = curl("GET", f"/v1/routes?tenant={key.tenant}&page_token={page['nextPageToken']}").body
        assert [route["key"]["version"] for route in rest["routes"]] == ["v2"]
        changes = curl("GET", f"/v1/changes?tenant={key.tenant}&newestFirst=true").body["changes"]
        assert [(change["kind"], change["key"]["version"]) for change in changes] == [
            ("CHANGE_KIND_CREATED", "v2"),
            ("CHANGE_KIND_CREATED", "v1"),
        ]
        assert curl("GET", f"{path_of(key, 'v2')}/changes").body["changes"] == changes[:1]

    def test_a_batch_and_an_import(self, curl: Curl, key: RouteKey) -> None:
        imported = curl("POST", "/v1/routes:import", {"routes": [{"key": as_json(key), "url": URL}]})
        assert (imported.status, imported.body["created"]) == (200, 1)

        keys = [as_json(key), as_json(key, "v9")]
        found, missing = curl("POST", "/v1/routes:batchResolve", {"keys": keys}).body["results"]
        assert found["route"]["url"] == URL
        assert missing["status"]["code"] == 5
        assert missing["status"]["details"][0]["reason"] == "ROUTE_NOT_FOUND"

    def test_a_watch_as_a_stream_of_json(self, grpc_server: RunningServer, curl: Curl, key: RouteKey) -> None:
        curl("POST", path_of(key), {"url": URL})
        events = []
        with httpx.stream("GET", f"http://{grpc_server.address}/v1/routes:watch?tenant={key.tenant}") as stream:
            assert (stream.status_code, stream.headers["content-type"]) == (200, "application/json")
            text = ""
            for part in stream.iter_text():
                text += part
                # An array that has no end; its elements come as they are made.
                events = json.loads(f"{text.rstrip().rstrip(',').removesuffix(']')}]")
                if "checkpoint" in events[-1]:
                    break

        assert [next(iter(event)) for event in events] == ["snapshot", "endOfSnapshot", "checkpoint"]
        assert events[0]["snapshot"]["routes"][0]["url"] == URL
        assert events[1]["endOfSnapshot"]["routeCount"] == "1"

    def test_who_has_a_revision(self, curl: Curl, grpc_server: RunningServer, key: RouteKey) -> None:
        revision = curl("POST", path_of(key), {"url": URL}).body["route"]["revision"]
        watched = f"/v1/routes:watch?tenant={key.tenant}&watcher.id={'w' * 16}&watcher.name=checkout"
        with httpx.stream("GET", f"http://{grpc_server.address}{watched}") as stream:
            events = stream.iter_text()
            next(events)
            epoch = curl("GET", f"{path_of(key)}:resolve").body["provenance"]["epoch"]
            asked = f"/v1/revisions/{revision}/propagation?tenant={key.tenant}"
            before = curl("GET", asked).body
            assert (before["watcherCount"], before["appliedCount"], before["allServers"]) == (1, 0, True)
            assert [behind["name"] for behind in before["behind"]] == ["checkout"]

            applied = {"tenant": key.tenant, "applied": {"epoch": epoch, "revision": revision}}
            reported = curl("POST", f"/v1/watchers/{'w' * 16}:report", applied)

            assert (reported.status, reported.body) == (200, {})
            assert curl("GET", asked).body["appliedCount"] == 1

    def test_who_reads_a_route(self, curl: Curl, key: RouteKey) -> None:
        curl("POST", path_of(key), {"url": URL})
        curl("GET", f"{path_of(key)}:resolve")

        reported = curl("POST", "/v1/usage:report", {"reads": [{"key": as_json(key), "count": 41}]})
        usage = curl("GET", f"{path_of(key)}/usage").body

        assert (reported.status, reported.body) == (200, {"interval": "5s"})
        assert [(reader["subject"], reader["readCount"]) for reader in usage["readers"]] == [("anonymous", "42")]
        assert (usage["window"], usage["allServers"]) == ("86400s", True)

    def test_the_paths_of_the_system_before(self, curl: Curl, key: RouteKey) -> None:
        query = "&".join(f"key.{name}={value}" for name, value in as_json(key).items())

        assert curl("POST", "/api/v1/routes", {"key": as_json(key), "url": URL}).status == 200
        assert curl("GET", f"/api/v1/routes/resolve?{query}").body["route"]["url"] == URL
        assert curl("POST", "/api/v1/routes/deactivate", {"key": as_json(key)}).body["route"]["active"] is False
        assert curl("POST", "/api/v1/routes/activate", {"key": as_json(key)}).body["route"]["active"] is True

    def test_http_2(self, grpc_server: RunningServer, key: RouteKey) -> None:
        curl = Curl(f"http://{grpc_server.address}", "--http2-prior-knowledge")

        created = curl("POST", path_of(key), {"url": URL})

        assert (created.status, created.version, created.body["route"]["url"]) == (200, "2", URL)

    def test_the_openapi_document_is_served(self, grpc_server: RunningServer) -> None:
        answer = httpx.get(f"http://{grpc_server.address}/openapi.yaml")

        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/yaml")


class TestErrors:
    def test_a_route_that_is_not_there(self, curl: Curl, key: RouteKey) -> None:
        answer = curl("GET", f"{path_of(key)}:resolve")

        assert (answer.status, answer.body["code"], answer.content_type) == (404, 5, "application/json")
        assert answer.reasons == ["ROUTE_NOT_FOUND"]

    def test_a_route_that_exists(self, curl: Curl, key: RouteKey) -> None:
        curl("POST", path_of(key), {"url": URL})

        answer = curl("POST", path_of(key), {"url": URL})

        assert (answer.status, answer.reasons) == (409, ["ROUTE_EXISTS"])

    def test_another_revision(self, curl: Curl, key: RouteKey) -> None:
        curl("POST", path_of(key), {"url": URL})

        answer = curl("POST", f"{path_of(key)}:deactivate", {"expectedRevision": "999999"})

        assert (answer.status, answer.reasons) == (409, ["REVISION_MISMATCH"])

    def test_a_malformed_field(self, curl: Curl, key: RouteKey) -> None:
        answer = curl("POST", path_of(key), {"url": "no url"})

        assert (answer.status, answer.body["code"], answer.reasons) == (400, 3, ["INVALID_FIELD"])
        assert [violation["field"] for violation in answer.detail("BadRequest")["fieldViolations"]] == ["url"]

    @pytest.mark.parametrize("body", ["{", "[]", '{"url": 1}', '{"active": "perhaps"}', "\x00"])
    def test_what_is_not_the_json_of_the_message(self, curl: Curl, key: RouteKey, body: str) -> None:
        answer = curl("POST", path_of(key), body)

        assert (answer.status, answer.body["code"], answer.content_type) == (400, 3, "application/json")
        assert answer.body["message"]

    @pytest.mark.parametrize(
        ("method", "path", "body", "field"),
        [
            ("GET", "/v1/routes:watch?tenant=a%2Fb", None, "tenant"),
            ("GET", "/v1/routes:watch?watcher.id=short", None, "watcher.id"),
            ("GET", "/v1/revisions/0/propagation", None, "revision"),
            ("GET", "/v1/revisions/1/propagation?env=.", None, "env"),
            ("POST", f"/v1/watchers/{'w' * 16}:report", {}, "applied"),
            ("POST", "/v1/watchers/short:report", {"applied": {"epoch": "e"}}, "watcher_id"),
            ("POST", "/v1/usage:report", {}, "reads"),
            ("GET", "/v1/tenants/a/services/b/envs/c/versions/-/usage", None, "key.version"),
        ],
    )
    def test_a_malformed_request_about_watchers_or_usage(
        self, curl: Curl, method: str, path: str, body: object, field: str
    ) -> None:
        answer = curl(method, path, body)

        assert (answer.status, answer.body["code"], answer.reasons) == (400, 3, ["INVALID_FIELD"])
        assert [violation["field"] for violation in answer.detail("BadRequest")["fieldViolations"]] == [field]

    def test_a_watch_that_cannot_be_resumed(self, curl: Curl) -> None:
        answer = curl("GET", "/v1/routes:watch?resume.epoch=another&resume.revision=1")

        assert (answer.status, answer.body["code"], answer.reasons) == (409, 10, ["EPOCH_CHANGED"])

    def test_a_revision_that_is_no_number(self, curl: Curl) -> None:
        answer = curl("GET", "/v1/revisions/x/propagation")

        assert (answer.status, answer.body["code"]) == (400, 3)

    def test_an_unknown_parameter(self, curl: Curl, key: RouteKey) -> None:
        answer = curl("GET", f"{path_of(key)}:resolve?minRevison=1")

        assert (answer.status, answer.body["code"]) == (400, 3)
        assert '"minRevison"' in answer.body["message"]

    def test_a_method_that_a_path_does_not_have(self, curl: Curl) -> None:
        answer = curl("PUT", "/v1/routes")

        assert (answer.status, answer.body["code"], answer.content_type) == (405, 12, "application/json")

    @pytest.mark.parametrize(("method", "path"), [("GET", "/"), ("GET", "/v2/routes")])
    def test_no_such_path(self, curl: Curl, method: str, path: str) -> None:
        answer = curl(method, path)

        assert (answer.status, answer.body["code"], answer.content_type) == (404, 5, "application/json")

    def test_a_body_that_is_too_large(self, curl: Curl, key: RouteKey) -> None:
        answer = curl("POST", path_of(key), {"url": "x" * (1 << 21)}, "-H", "expect:")
        assert (answer.status, answer.body["code"]) == (429, 8)

    def test_a_body_that_envoy_reads_at_once_and_is_too_large(self, engines, database_url: str, key: RouteKey) -> None:
        redis_url = fresh_redis(engines.urls["REDIS_URL"])
        with serving(
            settings(transport="envoy", database_url=database_url, redis_url=redis_url, max_message_bytes=2048)
        ) as server:
            answer = Curl(f"http://{server.address}", "--http1.1")("POST", path_of(key), {"url": "x" * 5000})

        assert (answer.status, answer.body["code"], answer.content_type) == (413, 8, "application/json")

    def test_headers_that_are_too_large(self, curl: Curl, key: RouteKey) -> None:
        answer = curl("GET", path_of(key), None, *("-H", f"x-large: {'x' * 90_000}"))

        assert (answer.status, answer.body["code"], answer.content_type) == (431, 8, "application/json")


@pytest.fixture(scope="module")
def guarded(engines, template_database: str, tmp_path_factory) -> Iterator[Curl]:
    """A server with TLS, where tokens are needed, and few reads of a tenant are allowed."""
    directory: Path = tmp_path_factory.mktemp("guarded")
    authority = Authority()
    files = TlsFiles(directory)
    files.write(authority.server(), authority.pem)
    (directory / "jwks.json").write_bytes(jwks(RSA))
    policy = directory / "policy.toml"
    policy.write_text(POLICY)
    ca = directory / "ca.pem"
    ca.write_bytes(authority.pem)
    with fresh_database(template_database) as database_url:
        chosen = settings(
            transport="envoy",
            database_url=database_url,
            redis_url=fresh_redis(engines.urls["REDIS_URL"]),
            tls_cert_file=files.cert,
            tls_key_file=files.key,
            jwt_issuer=ISSUER,
            jwt_audience=AUDIENCE,
            jwt_jwks_file=directory / "jwks.json",
            policy_file=policy,
            rate_tenant_reads=0.1,
            rate_burst_seconds=20,
        )
        with serving(chosen) as server:
            yield Curl(f"https://localhost:{server.app.grpc_server.port}", "--cacert", str(ca))


class TestAccess:
    def test_without_a_credential(self, guarded: Curl, key: RouteKey) -> None:
        answer = guarded("GET", path_of(key))

        assert (answer.status, answer.body["code"], answer.reasons) == (401, 16, ["UNAUTHENTICATED"])

    def test_without_permission(self, guarded: Curl, key: RouteKey) -> None:
        answer = guarded("POST", path_of(key), {"url": URL}, "-H", f"authorization: Bearer {RSA.token()}")

        assert (answer.status, answer.body["code"], answer.reasons) == (403, 7, ["FORBIDDEN"])

    def test_over_tls_with_a_token_until_the_rate_is_used_up(self, guarded: Curl, key: RouteKey) -> None:
        token = ("-H", f"authorization: Bearer {RSA.token()}")

        answers = [guarded("GET", f"{path_of(key)}:resolve", None, *token) for _ in range(3)]

        assert [answer.status for answer in answers] == [404, 404, 429]
        assert (answers[0].version, answers[0].reasons) == ("2", ["ROUTE_NOT_FOUND"])
        assert answers[2].reasons == ["RATE_LIMITED"]
        assert answers[2].detail("RetryInfo")["retryDelay"].endswith("s")


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "text/plain", None])
def test_a_page_of_another_origin_cannot_change_anything_without_asking(grpc_server, content_type):
    headers = {"origin": "https://evil.example"} | ({"content-type": content_type} if content_type else {})
    key = {"tenant": "team-x", "service": "forged", "env": "prod", "version": "v1"}
    body = json.dumps({"key": key, "url": URL})

    refused = httpx.post(f"http://{grpc_server.address}/api/v1/routes", content=body.encode(), headers=headers)

    assert (refused.status_code, refused.json()["code"]) == (403, 7)
    asked = httpx.post(
        f"http://{grpc_server.address}/api/v1/routes",
        content=body.encode(),
        headers=headers | {"content-type": "application/json"},
    )
    assert asked.status_code in (200, 409), asked.text
