"""screen: what is told is shown, on a terminal that textual plays."""

from datetime import UTC, datetime

from textual.widgets import DataTable, Static

from pointsman import Change, ChangeKind, RouteKey
from pointsman.cli.top.board import METRICS, Missing, Table
from pointsman.cli.top.exposition import parsed
from pointsman.cli.top.screen import PANELS, Top
from pointsman.cli.top.sources import Take

NOW = datetime(2026, 1, 31, 10, tzinfo=UTC)
METHOD = 'grpc_server_started_total{grpc_method="Resolve"}'


class Source:
    """A source that says what the test says."""

    def __init__(self) -> None:
        self.stopped = False

    def start(self, take: Take) -> None:
        self.take = take

    def stop(self) -> None:
        self.stopped = True


def change(revision: int, reason: str = "") -> Change:
    key = RouteKey.parse(f"a/b/c/v{revision}")
    return Change(revision, "", ChangeKind.DELETED, key, None, None, "ada", reason, "", NOW, "epoch-1", "")


def text_of(top: Top, name: str) -> str:
    return str(top.query_one(f"#{name}", Static).render())


async def test_what_is_told_is_shown() -> None:
    source = Source()
    top = Top(source, "localhost:50051")
    async with top.run_test(size=(120, 40)) as pilot:
        assert [text_of(top, name) for name in PANELS] == ["-"] * 4
        source.take(Table(240, 3))
        source.take((change(1), change(2, "[red]move[/red] \x1b[2J")))
        source.take(parsed(f"{METHOD} 0", 1.0))
        source.take(parsed(f"{METHOD} 30", 3.0))
        await pilot.pause()
        table = top.query_one(DataTable)
        rows = [[str(cell) for cell in table.get_row_at(number)] for number in range(table.row_count)]
        assert "localhost:50051  240 routes, revision 3" in text_of(top, "summary")
        assert "Resolve /s       15.0" in text_of(top, "calls")
    assert [row[1] for row in rows] == ["2", "1"]
    assert rows[0] == ["2026-01-31 10:00:00Z", "2", "ada", "DELETED", "a/b/c/v2", "", "[red]move[/red] \\x1b[2J"]


async def test_columns_are_as_wide_as_what_they_have() -> None:
    source = Source()
    top = Top(source, "x")
    async with top.run_test(size=(160, 40)) as pilot:
        for revision in (1, 2, 3):
            source.take((change(revision),))
            await pilot.pause()
        widths = {
            str(column.label): column.get_render_width(table)
            for table in [top.query_one(DataTable)]
            for column in table.ordered_columns
        }
        assert widths["TIME"] >= len("2026-01-31 10:00:00Z")
        assert widths["KEY"] >= len("a/b/c/v1")
        screen = top.export_screenshot()
    assert screen.count("2026-01-31&#160;10:00:00Z") == 3


async def test_what_is_missing_is_said_and_takes_no_room_when_it_is_back() -> None:
    source = Source()
    top = Top(source, "x")
    async with top.run_test() as pilot:
        missing = top.query_one("#missing", Static)
        assert not missing.display
        source.take(Missing(METRICS, "connection refused"))
        await pilot.pause()
        assert missing.display
        assert text_of(top, "missing") == "no metrics: connection refused"
        source.take(parsed("", 1.0))
        await pilot.pause()
        assert not missing.display


async def test_q_ends_it_and_its_sources() -> None:
    source = Source()
    top = Top(source, "x")
    async with top.run_test() as pilot:
        await pilot.press("q")
    assert source.stopped
    assert top.return_code == 0


async def test_news_after_the_end_are_of_no_interest() -> None:
    source = Source()
    top = Top(source, "x")
    async with top.run_test() as pilot:
        await pilot.press("ctrl+c")
    source.take(change_set := (change(1),))
    assert change_set
    assert list(top.board.changes) == []
