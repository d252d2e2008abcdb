"""How findings are sorted and shown."""

from pointsman_server.diagnosis.finding import error, in_order, ok, to_document, to_lines, warning

DOWN = error("redis", "does not answer", "start it", works="reads", since="2026-11-27T11:00:00Z")


def test_the_worst_comes_first() -> None:
    findings = [ok("kafka", "is up"), warning("clock", "differs", "synchronise it"), DOWN, ok("audit", "is up")]

    assert [finding.subject for finding in in_order(findings)] == ["redis", "clock", "audit", "kafka"]


def test_people_read_what_since_when_what_works_and_what_to_do() -> None:
    assert to_lines(DOWN) == [
        "error    redis: does not answer, since 2026-11-27T11:00:00Z",
        "         still works: reads",
        "         do: start it",
    ]
    assert to_lines(ok("kafka", "is up")) == ["ok       kafka: is up"]


def test_programs_read_what_is_there() -> None:
    assert to_document(ok("kafka", "is up")) == {"severity": "ok", "subject": "kafka", "what": "is up"}
    assert to_document(DOWN)["since"] == "2026-11-27T11:00:00Z"
