"""Which bearer credentials are accepted, on both transports, among bad and abusive ones."""

import http.client
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_pb2 import RouteKey
from pointsman.v1.route_service_pb2_grpc import RouteServiceStub
from tests.support.bad_tokens import BAD_CLAIMS, BAD_TOKENS, EC, OKP, RSA
from tests.support.engines import fresh_database, fresh_redis
from tests.support.h2_client import call_with_header
from tests.support.issuer import AUDIENCE, ISSUER, SigningKey, forged, good_claims, jwks
from tests.support.jwks_server import JwksServer, jwks_server
from tests.support.refusals import Refusal, refused
from tests.support.servers import EVERYBODY, RunningServer, serving, settings
from tests.support.waiting import eventually

URL = "https://payments.internal:8443"
CANARY = "canary"


@pytest.fixture(scope="module")
def issuer() -> Iterator[JwksServer]:
    with jwks_server(jwks(EC, RSA, OKP)) as server:
        yield server


@pytest.fixture(scope="module", params=["grpcio", "envoy"])
def grpc_server(request, engines, template_database, issuer) -> Iterator[RunningServer]:
    """A server that takes the tokens of the issuer, and bad ones without end."""
    with fresh_database(template_database) as database_url:
        chosen = settings(
            transport=request.param,
            database_url=database_url,
            redis_url=fresh_redis(engines.urls["REDIS_URL"]),
            jwt_issuer=ISSUER,
            policy_file=EVERYBODY,
            jwt_audience=AUDIENCE,
            jwt_jwks_url=issuer.url,
            auth_failures_per_second=100_000,
        )
        with serving(chosen) as server:
            yield server


def bearing(token: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {token}")]


def request(key: RouteKey) -> pb.ListRequest:
    return pb.ListRequest(tenant=key.tenant)


def is_let_in(stub: RouteServiceStub, key: RouteKey, metadata: list[tuple[str, str]]) -> bool:
    try:
        stub.List(request(key), metadata=metadata)
    except grpc.RpcError:
        return False
    return True


def assert_unauthenticated(refusal: Refusal, problem: str) -> None:
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
    assert refusal.metadata["problem"] == problem
    assert refusal.retry_seconds is None


@pytest.mark.parametrize("kind", [EC, RSA, OKP], ids=lambda key: key.kind)
def test_a_good_token_is_let_in_and_its_subject_is_the_actor(grpc_stub, key, kind):
    metadata = bearing(kind.token(sub="checkout"))
    grpc_stub.Create(pb.CreateRequest(key=key, url=URL), metadata=metadata)

    (change,) = grpc_stub.ListChanges(pb.ListChangesRequest(tenant=key.tenant), metadata=metadata).changes
    assert change.actor == "jwt:checkout"


def test_without_a_token_a_call_is_refused_and_told_what_to_send(grpc_stub, key):
    refusal = refused(grpc_stub.List, request(key))

    assert_unauthenticated(refusal, "missing")
    assert "authorization: Bearer" in refusal.message


# gRPC's clients refuse to send what is not ASCII; that is sent by hand below.
@pytest.mark.parametrize("what", [what for what, (_, token) in BAD_TOKENS.items() if token.isascii()])
def test_a_token_that_is_not_the_issuers_is_refused(grpc_stub, key, what):
    problem, token = BAD_TOKENS[what]
    refusal = refused(grpc_stub.List, request(key), metadata=bearing(token))

    assert_unauthenticated(refusal, problem)
    assert not token or token not in refusal.message + str(refusal.metadata)


@pytest.mark.parametrize("what", BAD_CLAIMS)
def test_a_token_that_says_the_wrong_things_is_refused(grpc_stub, key, what):
    problem, claims = BAD_CLAIMS[what]

    assert_unauthenticated(refused(grpc_stub.List, request(key), metadata=bearing(EC.token(**claims))), problem)


@pytest.mark.parametrize("method", ["Resolve", "BatchResolve", "Create", "Update", "Activate", "Deactivate", "Delete"])
def test_every_method_asks(grpc_stub, method):
    # Also for a request that is malformed: who may not call learns nothing about that.
    assert_unauthenticated(refused(getattr(grpc_stub, method), getattr(pb, f"{method}Request")()), "missing")


def test_two_headers_are_refused_though_each_is_good(grpc_stub, key):
    good = bearing(EC.token())
    grpc_stub.List(request(key), metadata=good)

    for second in (good, bearing(RSA.token()), [("authorization", "Basic eDp5")]):
        assert_unauthenticated(refused(grpc_stub.List, request(key), metadata=good + second), "ambiguous")
        assert_unauthenticated(refused(grpc_stub.List, request(key), metadata=second + good), "ambiguous")


@pytest.mark.parametrize("value", ["Basic eDp5", EC.token(), f"Token {EC.token()}"])
def test_another_scheme_is_refused(grpc_stub, key, value):
    assert_unauthenticated(refused(grpc_stub.List, request(key), metadata=[("authorization", value)]), "scheme")


def test_an_empty_header_beside_a_good_one_is_refused_where_it_is_seen(grpc_server, grpc_stub, key):
    metadata = [*bearing(EC.token()), ("authorization", "")]

    if grpc_server.app.grpc_server.choice.transport == "envoy":
        # Envoy drops an empty value that is appended to another: what is left is one good credential.
        grpc_stub.List(request(key), metadata=metadata)
    else:
        assert_unauthenticated(refused(grpc_stub.List, request(key), metadata=metadata), "ambiguous")


def test_two_tokens_in_one_header_are_refused(grpc_server, grpc_stub, key):
    metadata = [("authorization", f"Bearer {EC.token()}, Bearer {EC.token()}")]
    # Envoy joins two headers to just that.
    joined = grpc_server.app.grpc_server.choice.transport == "envoy"

    refusal = refused(grpc_stub.List, request(key), metadata=metadata)

    assert_unauthenticated(refusal, "ambiguous" if joined else "malformed")


def test_an_api_key_is_not_taken_where_those_are_off(grpc_stub, key):
    assert_unauthenticated(refused(grpc_stub.List, request(key), metadata=bearing("pmk_id_secret")), "not enabled")


@pytest.mark.parametrize("value", [b"Bearer \xff\xfe\xfd", b"Bearer a\xc3\x28", b"\xff", "Bearer ä.ö.ü".encode()])
def test_bytes_that_are_no_text_are_refused_and_the_server_lives(grpc_server, grpc_stub, key, value):
    # No gRPC library sends such a header, but HTTP/2 can carry it.
    outcome = call_with_header(grpc_server.app.grpc_server.port, "/pointsman.v1.RouteService/List", value)

    assert outcome.refused, outcome
    grpc_stub.List(request(key), metadata=bearing(EC.token()))


def test_probes_need_no_credentials(grpc_channel):
    health = health_pb2_grpc.HealthStub(grpc_channel)
    serving_now = health_pb2.HealthCheckResponse.SERVING

    assert health.Check(health_pb2.HealthCheckRequest(service="readiness")).status == serving_now
    watch = health.Watch(health_pb2.HealthCheckRequest())
    assert next(watch).status == serving_now
    watch.cancel()


def list_services(channel: grpc.Channel, metadata: list[tuple[str, str]] | None = None) -> list[str]:
    ask = reflection_pb2.ServerReflectionRequest(list_services="")
    answers = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([ask]), metadata=metadata)
    return [service.name for answer in answers for service in answer.list_services_response.service]


def test_reflection_asks_too(grpc_channel):
    assert_unauthenticated(refused(list_services, grpc_channel), "missing")
    assert_unauthenticated(refused(list_services, grpc_channel, bearing(EC.token() + "x")), "malformed")

    assert "pointsman.v1.RouteService" in list_services(grpc_channel, bearing(EC.token()))


def metrics(server: RunningServer) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", server.app.http_port, timeout=30)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return text


def test_refusals_are_counted_by_what_is_wrong_and_hold_nothing_of_the_caller(grpc_server, grpc_stub, key):
    refused(grpc_stub.List, request(key), metadata=bearing(SigningKey(CANARY, "EC", 5).token(sub=CANARY)))
    refused(grpc_stub.List, request(key), metadata=bearing(EC.token(exp=1, sub=CANARY)))
    text = metrics(grpc_server)

    assert 'pointsman_authentications_total{credential="bearer token",outcome="unknown key"}' in text
    assert 'pointsman_authentications_total{credential="bearer token",outcome="expired"}' in text
    assert 'grpc_code="Unauthenticated",grpc_method="List"' in text
    assert CANARY not in text


def test_a_flood_of_unknown_kids_asks_the_issuer_once_at_most(grpc_stub, key, issuer):
    before = issuer.asked
    for number in range(200):
        token = forged({"alg": "ES256", "kid": f"flood-{number}"}, good_claims())
        assert_unauthenticated(refused(grpc_stub.List, request(key), metadata=bearing(token)), "unknown key")

    assert issuer.asked <= before + 2, "one, or two if five seconds passed in between"


@pytest.mark.parametrize("transport", ["grpcio", "envoy"])
def test_beyond_the_bound_nothing_is_checked_but_who_was_let_in_goes_on(
    transport, engines, template_database, issuer, key
):
    with fresh_database(template_database) as database_url:
        chosen = settings(
            transport=transport,
            database_url=database_url,
            redis_url=fresh_redis(engines.urls["REDIS_URL"]),
            jwt_issuer=ISSUER,
            policy_file=EVERYBODY,
            jwt_audience=AUDIENCE,
            jwt_jwks_url=issuer.url,
            # One bad token in 100 seconds.
            auth_failures_per_second=0.01,
        )
        with serving(chosen) as server, grpc.insecure_channel(server.address) as channel:
            stub = RouteServiceStub(channel)
            known = bearing(EC.token(sub="known"))
            stub.List(request(key), metadata=known)
            bad = bearing(SigningKey("ec", "EC", 5).token())
            assert_unauthenticated(refused(stub.List, request(key), metadata=bad), "signature")

            refusal = refused(stub.List, request(key), metadata=bad)
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")
            assert refusal.metadata == {"limit": "authentication.failures"}
            assert refusal.retry_seconds

            stub.List(request(key), metadata=known)
            assert_unauthenticated(refused(stub.List, request(key)), "missing")


def test_the_keys_may_lie_in_a_file_and_change_there(engines, template_database, tmp_path: Path, key):
    path = tmp_path / "keys.json"
    path.write_bytes(jwks(EC))
    with fresh_database(template_database) as database_url:
        chosen = settings(
            database_url=database_url,
            redis_url=fresh_redis(engines.urls["REDIS_URL"]),
            jwt_issuer=ISSUER,
            policy_file=EVERYBODY,
            jwt_audience=AUDIENCE,
            jwt_jwks_file=path,
            access_refresh_seconds=0.05,
        )
        with serving(chosen) as server, grpc.insecure_channel(server.address) as channel:
            stub = RouteServiceStub(channel)
            metadata = bearing(EC.token())
            stub.List(request(key), metadata=metadata)

            path.write_bytes(jwks(RSA))
            assert eventually(lambda: not is_let_in(stub, key, metadata))
            assert_unauthenticated(refused(stub.List, request(key), metadata=metadata), "unknown key")
            stub.List(request(key), metadata=bearing(RSA.token()))


def test_while_the_issuer_cannot_be_reached_from_the_start_callers_are_told_to_come_again(
    engines, template_database, key
):
    with jwks_server() as gone:
        url = gone.url
    with fresh_database(template_database) as database_url:
        chosen = settings(
            database_url=database_url,
            redis_url=fresh_redis(engines.urls["REDIS_URL"]),
            jwt_issuer=ISSUER,
            policy_file=EVERYBODY,
            jwt_audience=AUDIENCE,
            jwt_jwks_url=url,
        )
        with serving(chosen) as server, grpc.insecure_channel(server.address) as channel:
            refusal = refused(RouteServiceStub(channel).List, request(key), metadata=bearing(EC.token()))

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "ACCESS_UNAVAILABLE")
    assert url not in str(refusal), "where the keys are is for the log"
