"""adapters.kafka.explanations: each error in words, with what to do."""

from pathlib import Path

import pytest
from confluent_kafka import KafkaError

from pointsman_server.adapters.kafka.explanations import expiry, explain
from tests.support.certificates import Authority

TIMED_OUT = KafkaError(KafkaError._TIMED_OUT, "Failed while waiting for controller: Local: Timed out")


def explained(error: KafkaError | None, reported: KafkaError | None = None, certificate: str = "") -> str:
    return explain(error, reported, user="the user u", topic="t", group="g", certificate=certificate)


@pytest.mark.parametrize(
    ("code", "text", "sentence"),
    [
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, "no", "does not let the user u use the topic t"),
        (
            KafkaError.CLUSTER_AUTHORIZATION_FAILED,
            "no",
            "does not let the user u use the topic t: grant it in the ACLs",
        ),
        (KafkaError.GROUP_AUTHORIZATION_FAILED, "no", "does not let the user u use the group g"),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, "no", "has no topic t"),
        (KafkaError._UNKNOWN_TOPIC, "no", "has no topic t"),
        (KafkaError.NOT_ENOUGH_REPLICAS, "too few", "failed: too few"),
        (
            KafkaError._INVALID_ARG,
            "ssl.key.location failed: x",
            "cannot be connected to with these settings: POINTSMAN_KAFKA_KEY_FILE failed",
        ),
    ],
)
def test_an_answer_of_a_broker(code: int, text: str, sentence: str) -> None:
    assert explained(KafkaError(code, text)).startswith(sentence)


@pytest.mark.parametrize(
    ("code", "text", "sentence"),
    [
        (
            KafkaError._AUTHENTICATION,
            "SASL authentication error: no",
            "refuses the user u: SASL authentication error: no; check",
        ),
        (KafkaError._AUTHENTICATION, "Failed to acquire token: no", "gets no token of the user u: "),
        (
            KafkaError._SSL,
            "certificate verify failed: ssl.ca.location",
            "is not trusted: certificate verify failed: POINTSMAN_KAFKA_CA_FILE",
        ),
        (KafkaError._TRANSPORT, "Disconnected: SSL connection closed by peer", "does not speak TLS there: "),
        (
            KafkaError._TRANSPORT,
            "ssl/tls alert bad certificate",
            "refuses the client certificate: none is set; check POINTSMAN_KAFKA_CERT_FILE",
        ),
        (KafkaError._RESOLVE, "Failed to resolve 'kafka:1'", "cannot be found: Failed to resolve 'kafka:1'"),
        (KafkaError._TRANSPORT, "Connect to ipv4#1 failed: Connection refused", "does not answer: Connection refused"),
        (KafkaError._TRANSPORT, "2 requests timed out: disconnect", "does not answer"),
    ],
)
def test_why_there_is_no_connection_is_what_the_client_reported(code: int, text: str, sentence: str) -> None:
    reported = KafkaError(code, text)
    assert explained(TIMED_OUT, reported).startswith(sentence)
    assert explained(None, reported).startswith(sentence)


def test_without_a_report_it_does_not_answer() -> None:
    assert explained(TIMED_OUT) == explained(None) == "does not answer"


def test_a_certificate_that_has_expired_or_cannot_be_read_is_named_and_a_good_one_is_not(tmp_path: Path) -> None:
    authority = Authority()
    old, new = tmp_path / "old.pem", tmp_path / "new.pem"
    old.write_bytes(authority.client(days=-1).cert)
    new.write_bytes(authority.client().cert)
    alert = KafkaError(KafkaError._TRANSPORT, "ssl/tls alert certificate unknown")
    assert explained(None, alert, str(old)).startswith(f"refuses the client certificate: {old} expired at 20")
    assert explained(None, alert, str(new)).startswith("refuses the client certificate: ssl/tls alert")
    assert expiry(str(new)) == ""
    assert "cannot be read (FileNotFoundError)" in expiry(str(tmp_path / "none"))
