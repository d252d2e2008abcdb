"""The lines that COPY reads, without a database."""

import json
from uuid import UUID

from pointsman_server.adapters.postgres.bulk_store import copy_text
from pointsman_server.domain.routes import RouteKey, Wanted

KEY = RouteKey("team-a", "payments", "prod", "v1")
URL = "https://x.internal/a?b=c"


def columns(*wanted: Wanted) -> list[list[str]]:
    return [line.split("\t") for line in copy_text(wanted).decode().splitlines()]


def test_each_route_is_a_line_with_its_position() -> None:
    lines = columns(Wanted(KEY, URL), Wanted(KEY, URL, expected_revision=5))
    assert [(line[0], line[2:7], line[9]) for line in lines] == [
        ("0", [*KEY, URL], "0"),
        ("1", [*KEY, URL], "5"),
    ]


def test_event_ids_are_random_uuids() -> None:
    ids = [UUID(line[1]) for line in columns(*[Wanted(KEY, URL)] * 100)]
    assert len(set(ids)) == 100
    assert {(each.version, each.variant) for each in ids} == {(4, "specified in RFC 4122")}


def test_what_is_not_given_is_null() -> None:
    ((*_, active, labels, _),) = columns(Wanted(KEY, URL, labels=None, active=None))
    assert (active, labels) == (r"\N", r"\N")
    lines = columns(*(Wanted(KEY, URL, labels={}, active=active) for active in (True, False)))
    assert [(line[7], line[8]) for line in lines] == [("t", "{}"), ("f", "{}")]


def test_backslashes_of_labels_are_doubled_and_control_characters_stay_escaped() -> None:
    labels = {"path": 'a\\b"c\t\n', "name": "é東"}
    for line in columns(*[Wanted(KEY, URL, labels=labels)] * 2):
        assert json.loads(line[8].replace("\\\\", "\\")) == labels
        assert "é東" in line[8]
