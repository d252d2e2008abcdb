"""The watches of the example clients go on as the end of a stream says: docs/watch.md."""

import re

import grpc
import pytest
from google.rpc import error_details_pb2

from tests.support.example_programs import LANGUAGES, built, select, watching
from tests.support.fake_route_service import Failure, FakeServer, serving
from tests.support.waiting import eventually

KEY = "team-a/payments/prod/v1"
URL = "https://payments.internal:8443"
RETRY_INFO = error_details_pb2.RetryInfo()
RETRY_INFO.retry_delay.FromMilliseconds(300)

AWAY = Failure(grpc.StatusCode.UNAVAILABLE, "away")
BUSY = Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy", "OVERLOADED", details=(RETRY_INFO,))


def asked(server: FakeServer) -> list[tuple[str, int]]:
    """Return the token of each stream that was asked for; an empty one stands for none."""
    tokens = [call.request.resume for call in server.called("Watch")]
    return [(token.epoch, token.revision) for token in tokens]


NONE, FIRST = ("", 0), ("epoch-1", 1)
SNAPSHOT = ("snapshot of 1 routes at revision 1", "live at revision 1")


@pytest.fixture
def server():
    with serving(FakeServer()) as server:
        server.add(KEY, URL)
        yield server


@pytest.mark.parametrize("name", LANGUAGES)
def test_a_watch_goes_on_as_the_end_of_its_stream_says(name, server):
    with watching(built(name), "--server", server.target, "--tenant", "team-a") as watch:
        lines = [*SNAPSHOT]
        watch.wait_for(*lines)

        server.end_streams(BUSY)
        error = watch.wait_for_error("RESOURCE_EXHAUSTED OVERLOADED: busy; resuming after revision 1 in ")
        assert 0.3 <= float(re.findall(r"in ([0-9.]+) s$", error)[0]) <= 0.45
        lines += ["live at revision 1"]
        watch.wait_for(*lines)

        server.end_streams(AWAY)
        watch.wait_for_error("UNAVAILABLE: away; resuming after revision 1 in ")
        lines += ["live at revision 1"]
        watch.wait_for(*lines)

        server.compacted = 2
        server.end_streams(AWAY)
        watch.wait_for_error("OUT_OF_RANGE REVISION_COMPACTED: compacted; starting over in ")
        lines += SNAPSHOT
        watch.wait_for(*lines)
        server.compacted = 0

        with server._changed:
            server.restore(server.view, "epoch-2")
            server.end_streams(AWAY)
        watch.wait_for_error("ABORTED EPOCH_CHANGED: another epoch; starting over in ")
        lines += SNAPSHOT
        watch.wait_for(*lines)

    assert asked(server) == [NONE, FIRST, FIRST, FIRST, NONE, FIRST, NONE]


@pytest.mark.parametrize("name", LANGUAGES)
def test_changes_of_traffic_are_shown_and_an_older_server_is_asked(name, server):
    example = built(name)
    server.add("team-a/payments/prod/v2", "https://two.internal")
    server.divide("team-a/payments/prod", {"v1": 5_000, "v2": 5_000})
    with watching(example, "--server", server.target, "--tenant", "team-a") as watch:
        lines = ["snapshot of 2 routes at revision 3", "live at revision 3"]
        watch.wait_for(*lines)
        server.divide("team-a/payments/prod", {"v1": 9_000, "v2": 1_000})
        watch.wait_for(*lines, "4 TRAFFIC_SET team-a/payments/prod v1=9000 v2=1000")

    here = select(example, "team-a/payments/prod", ["user-1", "user-2"], "--server", server.target)
    assert not server.called("Select")
    server.knows_traffic = False
    there = select(example, "team-a/payments/prod", ["user-1", "user-2"], "--server", server.target)
    assert len(server.called("Select")) == 2
    assert (here.returncode, here.stdout) == (there.returncode, there.stdout) == (0, there.stdout), here.stderr
    assert there.stdout.splitlines()[0] in {f"v1 {URL}", "v2 https://two.internal"}


@pytest.mark.parametrize("name", LANGUAGES)
def test_a_stream_that_is_silent_is_closed(name, server):
    # On a slow machine the first stream may take as long to open, and is closed then: that is no failure.
    with watching(built(name), "--server", server.target, "--tenant", "team-a", "--silence", "1") as watch:
        assert eventually(lambda: "live at revision 1" in watch.lines), watch.errors
        server.silent = True
        watch.wait_for_error("interrupted: the stream was silent for 1")
        assert eventually(lambda: asked(server)[-1] == FIRST), watch.errors
