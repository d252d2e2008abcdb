"""cli.importing and cli.bulk: many routes, each row on its own."""

import json
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2

from pointsman import chunks
from pointsman.cli.bulk import retry
from tests.support.fake_route_service import Failure, FakeServer
from tests.unit.client.conftest import Run

CSV = """key,url,active,labels
a/b/c/v1,https://one.internal,true,tier=gold
a/b/c/v2,https://two.internal,false,
"""


def write(text: str, name: str = "routes.csv") -> str:
    Path(name).write_text(text)
    return name


def test_creates_every_row(run: Run, server: FakeServer) -> None:
    done = run("import", write(CSV), "--reason", "migration")
    assert (done.exit_code, done.stdout) == (0, "2 rows: 2 created, 0 updated, 0 unchanged, 0 failed\n")
    assert server.state() == {
        "a/b/c/v1": ("https://one.internal", True, {"tier": "gold"}),
        "a/b/c/v2": ("https://two.internal", False, {}),
    }
    assert {change.reason for change in server.changes} == {"migration"}


def test_an_inactive_route_is_never_live(run: Run, server: FakeServer) -> None:
    run("import", write(CSV))
    assert [change.after.active for change in server.changes if change.key.version == "v2"] == [False]


def test_again_changes_nothing(run: Run, server: FakeServer) -> None:
    run("import", write(CSV))
    done = run("import", "routes.csv")
    assert (done.exit_code, done.stdout) == (0, "2 rows: 0 created, 0 updated, 2 unchanged, 0 failed\n")
    assert len(server.changes) == 2


def test_changes_what_differs(run: Run, server: FakeServer) -> None:
    server.add("a/b/c/v1", "https://old.internal", active=False)
    done = run("import", write(CSV), "--json")
    assert json.loads(done.stdout)["updated"] == 1
    assert server.state()["a/b/c/v1"] == ("https://one.internal", True, {"tier": "gold"})


def test_a_bad_row_does_not_stop_the_others(run: Run, server: FakeServer) -> None:
    server.refused_urls.add("https://refused.internal")
    text = CSV + "a/b/c/v3,https://refused.internal,,\na/b,https://x.internal,,\na/b/c/v1,https://x.internal,,\n"
    done = run("import", write(text))
    assert done.exit_code == 1
    assert done.stdout == "5 rows: 2 created, 0 updated, 0 unchanged, 3 failed\n"
    _, *lines = done.stderr.splitlines()
    assert lines[0] == "routes.csv:4: a/b/c/v3 url: is refused (INVALID_FIELD)"
    assert lines[1].startswith("routes.csv:5: key: 'a/b' must be")
    assert lines[2].startswith("routes.csv:6: a/b/c/v1 is given twice: first in line 2")
    assert len(server.state()) == 2


def test_failed_rows_are_part_of_the_document(run: Run) -> None:
    done = run("import", write("key,url\na/b,https://x.internal\n"), "--json")
    (row,) = json.loads(done.stdout)["failed"]
    assert (done.exit_code, row["line"], row["reason"]) == (1, 2, "INVALID_ROW")


def test_reads_json_lines_from_standard_input(run: Run, server: FakeServer) -> None:
    rows = "".join(json.dumps({"key": f"a/b/c/v{number}", "url": "https://x.internal"}) + "\n" for number in range(50))
    done = run("import", "-", "--format", "jsonl", input=rows)
    assert done.exit_code == 0
    assert len(server.state()) == 50


def test_a_name_without_a_format_needs_the_option(run: Run) -> None:
    done = run("import", write(CSV, "routes.txt"))
    assert done.exit_code == 2
    assert "--format" in done.stderr
    assert run("import", "routes.txt", "--format", "csv").exit_code == 0


def test_waits_where_the_server_asks_to(run: Run, server: FakeServer) -> None:
    details = (error_details_pb2.RetryInfo(retry_delay=Duration(nanos=1_000_000)),)
    limited = Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "too fast", "RATE_LIMITED", details=details)
    server.fail("Import", *[limited] * 10)
    assert run("import", write(CSV)).exit_code == 0
    assert len(server.called("Import")) == 11


@pytest.mark.parametrize(
    ("code", "exit_code"), [(grpc.StatusCode.UNAVAILABLE, 5), (grpc.StatusCode.UNAUTHENTICATED, 6)]
)
def test_a_server_that_cannot_be_used_is_told_once(
    run: Run, server: FakeServer, code: grpc.StatusCode, exit_code: int
) -> None:
    server.fail("List", Failure(code, trailers=(("grpc-retry-pushback-ms", "-1"),)))
    assert run("import", write(CSV)).exit_code == exit_code
    assert server.called("Import") == []


def test_who_may_not_list_may_still_import(run: Run, server: FakeServer) -> None:
    server.fail("List", Failure(grpc.StatusCode.PERMISSION_DENIED, reason="FORBIDDEN"))
    assert run("import", write(CSV)).exit_code == 0


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pause before another try."""
    monkeypatch.setattr(retry, "_FIRST_PAUSE", 0.0)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of ten rows."""
    monkeypatch.setattr(chunks, "MOST_ROUTES", 10)


GONE = Failure(grpc.StatusCode.UNAVAILABLE, "gone", trailers=(("grpc-retry-pushback-ms", "-1"),))


def many(count: int) -> str:
    return "key,url\n" + "".join(f"a/b/c/v{number},https://x{number}.internal\n" for number in range(count))


@pytest.mark.usefixtures("hurried", "small")
def test_a_server_that_comes_back_is_waited_for(run: Run, server: FakeServer) -> None:
    server.fail("Import", *[GONE] * 7)
    done = run("import", write(many(40)), "--concurrency", "1")
    assert (done.exit_code, done.stdout) == (0, "40 rows: 40 created, 0 updated, 0 unchanged, 0 failed\n")
    assert len({call.request.request_id for call in server.called("Import")}) == 4


@pytest.mark.usefixtures("hurried", "small")
def test_a_server_that_goes_away_for_good_is_given_up(run: Run, server: FakeServer) -> None:
    server.fail("Import", *[GONE] * 200)
    done = run("import", write(many(40)), "--concurrency", "1", "--json")
    failed = json.loads(done.stdout)["failed"]
    assert (done.exit_code, len(server.called("Import"))) == (1, 8 + 3)
    assert [(row["line"], row["rows"], row["reason"]) for row in failed] == [
        (line, 10, "UNAVAILABLE") for line in (2, 12, 22, 32)
    ]


@pytest.mark.usefixtures("hurried", "small")
def test_what_failed_can_be_gone_on_with(run: Run, server: FakeServer) -> None:
    server.fail("Import", *[GONE] * 8)
    first = run("import", write(many(25)), "--concurrency", "1")
    assert "routes.csv:2: a/b/c/v0 and 9 rows after it: gone (UNAVAILABLE)" in first.stderr
    name = first.stderr.split("--resume ")[1].split()[0]
    assert first.stderr.startswith(f"run {name}\n")
    before = len(server.changes)
    again = run("import", "routes.csv", "--resume", name)
    assert (before, len(server.changes)) == (15, 25)
    # What was done already answers as it did.
    assert again.stdout == "25 rows: 25 created, 0 updated, 0 unchanged, 0 failed\n"


def test_a_run_that_cannot_be_one_is_refused(run: Run) -> None:
    assert run("import", write(CSV), "--resume", "a b").exit_code == 2


@pytest.mark.usefixtures("small")
def test_rows_that_are_refused_stop_no_others_however_many_they_are(run: Run, server: FakeServer) -> None:
    server.refused_urls |= {f"https://x{number}.internal" for number in range(35)}
    done = run("import", write(many(40)), "--json")
    document = json.loads(done.stdout)
    assert (done.exit_code, document["created"], len(document["failed"])) == (1, 5, 35)
    assert [row["line"] for row in document["failed"]] == list(range(2, 37))


def test_rows_that_exist_can_be_refused_or_skipped(run: Run, server: FakeServer) -> None:
    server.add("a/b/c/v1", "https://old.internal")
    done = run("import", write(CSV), "--existing", "refuse")
    assert (done.exit_code, done.stdout) == (1, "2 rows: 1 created, 0 updated, 0 unchanged, 1 failed\n")
    assert "routes.csv:2: a/b/c/v1 key: exists (ROUTE_EXISTS)" in done.stderr
    done = run("import", "routes.csv", "--existing", "skip")
    assert (done.exit_code, done.stdout) == (0, "2 rows: 0 created, 0 updated, 2 unchanged, 0 failed\n")


def test_who_may_not_write_everywhere_is_told_by_row(run: Run, server: FakeServer) -> None:
    details = {"permission": "write", "tenant": "other", "env": "c"}
    server.fail("Import", Failure(grpc.StatusCode.PERMISSION_DENIED, "may not", "FORBIDDEN", details))
    done = run("import", write(CSV + "other/b/c/v1,https://x.internal,,\n"))
    assert (done.exit_code, done.stdout) == (1, "3 rows: 2 created, 0 updated, 0 unchanged, 1 failed\n")
    assert "routes.csv:4: other/b/c/v1 may not (FORBIDDEN)" in done.stderr


@pytest.mark.usefixtures("small")
def test_a_file_that_cannot_be_read_on_says_where(run: Run, server: FakeServer) -> None:
    done = run("import", write(many(15) + 'a/b/c/w,"https://x.internal"y\na/b/c/z,https://z.internal\n'))
    assert (done.exit_code, done.stdout) == (1, "16 rows: 15 created, 0 updated, 0 unchanged, 1 failed\n")
    assert "routes.csv:17: no valid CSV" in done.stderr
    assert len(server.state()) == 15
