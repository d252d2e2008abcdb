"""adapters.kafka.cluster: the settings of a client, and whose errors they report."""

from confluent_kafka import KafkaError, KafkaException

from pointsman_server.adapters.kafka.client_errors import ClientErrors
from pointsman_server.adapters.kafka.cluster import KafkaCluster

CLUSTER = KafkaCluster("a:1,b:2", {"sasl.password": "canary"}, "the user u", "team")


def test_options_and_settings_are_joined_and_the_client_reports_to_whom_it_is_told() -> None:
    errors = ClientErrors()
    config = CLUSTER.config(errors, group_id=CLUSTER.group("audit"))
    assert config["bootstrap.servers"] == "a:1,b:2"
    assert (config["sasl.password"], config["group.id"]) == ("canary", "team-audit")
    assert config["error_cb"] is errors


def test_an_error_names_the_brokers_the_user_and_what_it_is_about_but_no_secret() -> None:
    error = KafkaException(KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED, "no"))
    told = str(CLUSTER.unavailable(error, topic="t", group="team-audit"))
    assert told.startswith("Kafka at a:1,b:2 does not let the user u use the group team-audit: ")
    assert str(CLUSTER.unavailable()) == "Kafka at a:1,b:2 does not answer"
    assert "canary" not in repr(CLUSTER)
