"""What the command of the fault suite takes."""

import pytest

from tests.faults.__main__ import chosen_by, options
from tests.faults.rig import Rig
from tests.faults.table import FAULTS


def test_faults_are_chosen_by_a_part_of_their_name() -> None:
    assert chosen_by(options([]).only) == [fault for fault in FAULTS if fault.brokers == 1]
    assert {fault.name for fault in chosen_by(options(["--only", "redis"]).only)} >= {"Redis flushed", "Redis paused"}


def test_a_choice_of_none_is_refused_and_the_names_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        options(["--only", "valkey"])
    assert left.value.code == 2
    assert "Redis flushed" in capsys.readouterr().err


def test_servers_alternate_between_the_transports_unless_one_is_named() -> None:
    assert [options(arguments).transport for arguments in ([], ["--transport", "grpcio"])] == ["", "grpcio"]
    for transport, expected in (("", ("envoy", "grpcio")), ("grpcio", ("grpcio",))):
        rig = Rig(transport=transport)
        try:
            assert rig._transports == expected
        finally:
            rig.close()


def test_a_broker_of_three_is_killed_only_where_there_are_three(capsys: pytest.CaptureFixture[str]) -> None:
    given = options(["--brokers", "3"])
    assert chosen_by(given.only, given.brokers) == list(FAULTS)
    for brokers in (1, 3):
        rig = Rig(brokers=brokers)
        try:
            assert len(rig.kafka.each) == brokers
        finally:
            rig.close()
    with pytest.raises(SystemExit):
        options(["--only", "one Kafka broker"])
    assert "one Kafka broker" not in capsys.readouterr().err


def test_servers_on_a_cluster_are_told_its_own_ports() -> None:
    assert [options(arguments).redis_cluster for arguments in ([], ["--redis-cluster"])] == [False, True]
    rig = Rig(redis_cluster=True)
    try:
        given = rig._environ(rig.redis.ports, 5432)
        assert given["REDIS_URL"] == f"redis+cluster://{','.join(f'127.0.0.1:{port}' for port in rig.redis.ports)}/0"
        assert given["PYTHONPATH"].endswith("redis_ways")
    finally:
        rig.close()
