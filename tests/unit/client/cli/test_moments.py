"""moments: a revision, a time, or how long ago."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
import typer

from pointsman.cli.moments import moment_of, time_of


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("", None),
        ("0", 0),
        ("1042", 1042),
        ("2026-11-20", datetime(2026, 11, 20, tzinfo=UTC)),
        ("2026-11-20 14:00", datetime(2026, 11, 20, 14, tzinfo=UTC)),
        ("2026-11-20 14:00:03Z", datetime(2026, 11, 20, 14, 0, 3, tzinfo=UTC)),
        ("2026-11-20T14:00:03.5+01:00", datetime(2026, 11, 20, 14, 0, 3, 500_000, tzinfo=timezone(timedelta(hours=1)))),
    ],
)
def test_reads_a_revision_or_a_time_in_utc(text: str, moment: int | datetime | None) -> None:
    assert moment_of(text) == moment


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("2h ago", timedelta(hours=2)),
        ("-2h", timedelta(hours=2)),
        ("90 min ago", timedelta(minutes=90)),
        ("-1.5d", timedelta(days=1.5)),
        ("1w ago", timedelta(weeks=1)),
        ("30s ago", timedelta(seconds=30)),
        ("5m ago", timedelta(minutes=5)),
    ],
)
def test_reads_how_long_ago(text: str, length: timedelta) -> None:
    before = datetime.now(UTC)
    found = moment_of(text)
    assert isinstance(found, datetime)
    assert before - length <= found <= datetime.now(UTC) - length


@pytest.mark.parametrize(
    "text", ["yesterday", "2h", "-2x", "2026-13-01", "14:00", "-", "ago", "99999999999999w ago", "1.5"]
)
def test_anything_else_is_refused_with_examples(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="2h ago"):
        moment_of(text)


def test_a_revision_must_fit() -> None:
    with pytest.raises(typer.BadParameter, match="at most 9223372036854775807"):
        moment_of("9223372036854775808")


def test_a_time_is_no_revision() -> None:
    assert time_of("", "--after") is None
    with pytest.raises(typer.BadParameter):
        time_of("1042", "--after")
