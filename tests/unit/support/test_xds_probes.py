"""The probe in Python and its driver, on backends without xDS."""

from collections.abc import Iterator

import grpc
import pytest

from tests.support.waiting import eventually
from tests.support.xds_clients import programs
from tests.support.xds_clients.backends import Backends, backends
from tests.support.xds_clients.probe import MOST_OPEN
from tests.support.xds_clients.probes import Probe

OK, UNAVAILABLE = grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE


@pytest.fixture(scope="module")
def running() -> Iterator[Backends]:
    with backends() as started:
        yield started


@pytest.fixture(scope="module")
def shared() -> Iterator[Probe]:
    with Probe("python", programs.python_probe(), {}) as started:
        started.wait_until_ready()
        yield started


@pytest.fixture
def probe(shared: Probe) -> Iterator[Probe]:
    yield shared
    shared.drop_all()


def test_it_says_when_the_answer_becomes_another_one(probe: Probe, running: Backends) -> None:
    port = running.open("one")
    probe.target("calls", f"127.0.0.1:{port}", rate=200)
    first = probe.wait("calls", OK, "one")
    assert first.began < first.at
    probe.wait_for_calls("calls", 20)
    running.close("one")
    lost = probe.wait("calls", UNAVAILABLE, since=first.at)
    assert lost.text
    running.open("two", f"127.0.0.1:{port}")
    probe.wait("calls", OK, "two")
    assert set(probe.summary("calls")) >= {(OK, "one"), (UNAVAILABLE, ""), (OK, "two")}
    assert lost.before <= probe.summary("calls")[OK, "one"]

    probe.reset("calls")
    probe.wait_for_calls("calls", 5)
    assert set(probe.summary("calls")) == {(OK, "two")}
    assert [answer.backend for answer in probe.changes("calls")] == ["two"]


def test_a_single_call_is_not_counted(probe: Probe, running: Backends) -> None:
    probe.target("idle", f"127.0.0.1:{running.open('slow')}", rate=0)
    call = probe.hold("idle")
    running.wait_until_held("slow")
    running.release("slow")
    answer = probe.ended(call)
    assert (answer.code, answer.backend) == (OK, "slow")
    assert not probe.summary("idle")


def test_no_more_calls_are_under_way_than_a_slow_machine_can_answer(probe: Probe, running: Backends) -> None:
    probe.target("held", f"127.0.0.1:{running.open('holds')}", rate=500, seconds=-1)
    for _ in range(MOST_OPEN):
        running.wait_until_held("holds")
    probe.target("calls", f"127.0.0.1:{running.open('answers')}", rate=500)
    probe.wait_for_calls("calls", MOST_OPEN)
    running.release("holds")
    probe.wait_for_calls("held", MOST_OPEN)
    assert probe.calls("held") == MOST_OPEN
    running.release("holds")


def test_a_name_may_be_given_to_another_target(probe: Probe, running: Backends) -> None:
    for name in ("left", "right"):
        probe.target("calls", f"127.0.0.1:{running.open(name)}", rate=200)
        probe.wait("calls", OK, name)
    assert set(probe.summary("calls")) == {(OK, "right")}


def test_what_does_not_happen_is_said_with_what_does(probe: Probe, running: Backends) -> None:
    probe.target("calls", f"127.0.0.1:{running.open('here')}")
    probe.wait("calls", OK)
    with pytest.raises(AssertionError, match=r"python: calls: NOT_FOUND  is missing; the last answers were OK here"):
        probe.wait("calls", grpc.StatusCode.NOT_FOUND, patience=0.05)


def test_a_channel_that_cannot_be_opened_is_an_answer(probe: Probe) -> None:
    probe.target("calls", "127.0.0.1:1", credentials="tls", ca="/does/not/exist")
    assert "No such file" in probe.wait("calls", grpc.StatusCode.UNKNOWN).text


def test_a_process_that_ends_is_named() -> None:
    with Probe("go", ["/bin/sh", "-c", "echo broken >&2"], {}) as probe:
        assert eventually(lambda: probe.errors)
        with pytest.raises(AssertionError, match="go: it does not start; the process has ended: broken"):
            probe.wait_until_ready()
