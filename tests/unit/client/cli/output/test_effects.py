"""output.effects: changes as lines of a difference, and refusals without numbers."""

import pytest

from pointsman import Client, FieldViolation, PointsmanError, Unimplemented
from pointsman.change_sets import Create, Delete, SetTraffic, Update
from pointsman.cli.output.effects import (
    effect_text,
    effects_document,
    needs_change_sets,
    refused_by_name,
    sign_of,
    write_effects,
)
from pointsman.cli.output.terminal import Color, Terminal
from tests.support.fake_route_service import FakeServer

URL = "https://x.internal"
MUTATIONS = (
    Create("a/b/c/v1", URL),
    SetTraffic("a/b/c", {"v1": 10_000}),
    Update("a/b/d/v1", "https://y.internal"),
    Delete("a/b/e/v1"),
)


@pytest.fixture(autouse=True)
def _routes(server: FakeServer) -> None:
    server.add("a/b/d/v1", URL)
    server.add("a/b/e/v1", URL)


def test_each_change_is_a_line_with_its_sign(client: Client) -> None:
    assert [effect_text(change) for change in client.commit(MUTATIONS).changes] == [
        "+ a/b/c/v1 https://x.internal active",
        "+ a/b/c traffic: v1=100%",
        "~ a/b/d/v1 url: https://x.internal → https://y.internal",
        "- a/b/e/v1 https://x.internal active",
    ]
    assert (sign_of(None, 1), sign_of(1, None), sign_of(1, 2)) == ("+", "-", "~")


def test_the_end_says_which_change_set_it_is_or_that_it_is_none(
    client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = Terminal(False, Color.NEVER)
    write_effects(terminal, client.commit(MUTATIONS, dry_run=True), dry_run=True)
    write_effects(terminal, client.commit(MUTATIONS), dry_run=False)
    write_effects(terminal, client.commit(MUTATIONS[1:2]), dry_run=False)
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 8
    assert printed.err.splitlines() == [
        "nothing is changed: this is what would be done",
        "done: change set 3",
        "nothing to do: all is so already",
    ]


def test_the_document_says_whether_it_was_done(client: Client) -> None:
    document = effects_document(client.commit(MUTATIONS, dry_run=True), dry_run=True)
    assert (document["dry_run"], document["change_set_id"], len(document["changes"])) == (True, 3, 4)


def test_a_refusal_is_said_without_the_number_of_its_mutation() -> None:
    violations = [FieldViolation(f"mutations[{number}]", f"ROUTE_EXISTS: route {number} exists") for number in (0, 2)]
    with pytest.raises(PointsmanError) as raised, refused_by_name():
        raise PointsmanError("mutations[0]: …", violations=violations)
    assert (raised.value.message, raised.value.violations) == ("route 0 exists; route 2 exists", ())


def test_another_error_stays_as_it_is() -> None:
    with pytest.raises(PointsmanError) as raised, refused_by_name():
        raise PointsmanError("gone", violations=[FieldViolation("key", "is bad")])
    assert (raised.value.message, len(raised.value.violations)) == ("gone", 1)


def test_a_server_without_change_sets_is_older() -> None:
    with pytest.raises(Unimplemented, match="older than this command") as raised, needs_change_sets():
        raise Unimplemented("no such method")
    assert raised.value.__notes__ == ["upgrade the servers first, or use a pointsman of their version"]
