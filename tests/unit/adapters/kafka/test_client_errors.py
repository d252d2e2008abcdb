"""adapters.kafka.client_errors: the last error that says why there is no connection, and what is left of its text."""

from confluent_kafka import KafkaError

from pointsman_server.adapters.kafka.client_errors import ClientErrors, words

REFUSED = KafkaError(KafkaError._AUTHENTICATION, "sasl_ssl://a:1/bootstrap: SASL authentication error: no")
UNTRUSTED = KafkaError(KafkaError._SSL, "ssl://a:1/bootstrap: SSL handshake failed: certificate verify failed")
ALERT = KafkaError(KafkaError._TRANSPORT, "ssl://a:1/1: Receive failed: ssl/tls alert certificate unknown")
CLOSED = KafkaError(KafkaError._TRANSPORT, "a:1/bootstrap: Connect to ipv4#1.2.3.4:1 failed: Connection refused")
ALL_DOWN = KafkaError(KafkaError._ALL_BROKERS_DOWN, "3/3 brokers are down")


def test_a_refusal_says_more_than_a_lost_connection_until_it_is_old() -> None:
    now = 0.0
    errors = ClientErrors(clock=lambda: now)
    errors(CLOSED)
    assert (errors.cause, errors.refused) == (CLOSED, False)
    errors(ALL_DOWN)
    for refusal in (REFUSED, UNTRUSTED, ALERT):
        errors(refusal)
        errors(CLOSED)
        assert (errors.cause, errors.refused) == (refusal, True)
    now = 11.0
    errors(CLOSED)
    assert (errors.cause, errors.refused) == (CLOSED, False)


def test_one_broker_that_refuses_is_not_all_of_them() -> None:
    errors = ClientErrors()
    errors(REFUSED)
    assert not errors.refused
    errors(ALL_DOWN)
    assert errors.refused


def test_that_all_brokers_are_down_is_no_cause_and_an_answer_clears_all() -> None:
    errors = ClientErrors()
    errors(REFUSED)
    errors(ALL_DOWN)
    assert (errors.cause, errors.all_down) == (REFUSED, True)
    errors.clear()
    assert (errors.cause, errors.all_down, errors.refused) == (None, False, False)


def test_what_differs_from_one_attempt_to_the_next_is_left_out() -> None:
    first = "sasl_ssl://10.0.0.1:9093/bootstrap: SASL authentication error: no (after 302ms in state AUTH_REQ)"
    second = "sasl_ssl://10.0.0.2:9093/2: SASL authentication error: no (after 5ms in state AUTH_REQ, 3 identical)"
    assert {words(KafkaError(KafkaError._AUTHENTICATION, text)) for text in (first, second)} == {
        "SASL authentication error: no"
    }
