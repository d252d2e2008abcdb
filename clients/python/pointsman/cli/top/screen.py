"""The screen of ``pointsman top``."""

from typing import ClassVar, Protocol

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal
from textual.message import Message
from textual.widgets import DataTable, Footer, Sparkline, Static

from pointsman.cli.output.terminal import printable
from pointsman.cli.output.text import time_text, what_text
from pointsman.cli.top.board import Board, Lines, News
from pointsman.cli.top.sources import Take
from pointsman.results import Change

COLUMNS = ("TIME", "REVISION", "ACTOR", "KIND", "KEY", "CHANGE", "REASON")
PANELS = ("calls", "caches", "lags", "watchers")
REFRESH_SECONDS = 1.0


class Source(Protocol):
    """What gives the news, in threads of its own."""

    def start(self, take: Take) -> None: ...

    def stop(self) -> None: ...


class Told(Message):
    """Some news."""

    def __init__(self, news: News) -> None:
        super().__init__()
        self.news = news


class Top(App[None]):
    """Shows a board; ``q`` and Ctrl-C end it."""

    CSS = """
    #summary { height: 1; background: $panel; padding: 0 1; }
    #missing { height: auto; color: $warning; padding: 0 1; }
    #panels { height: 9; }
    .panel { width: 1fr; border: round $primary; padding: 0 1; }
    #rate { height: 2; margin: 0 1; }
    #changes { height: 1fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [("q", "quit", "Quit"), ("ctrl+c", "quit", "Quit")]
    ENABLE_COMMAND_PALETTE = False

    def __init__(self, source: Source, title: str) -> None:
        super().__init__()
        self.board = Board()
        self._source = source
        self._name = title
        self._shown = -1

    def compose(self) -> ComposeResult:
        """Lay out the screen."""
        yield Static(id="summary", markup=False)
        yield Static(id="missing", markup=False)
        with Horizontal(id="panels"):
            for name in PANELS:
                panel = Static(id=name, classes="panel", markup=False)
                panel.border_title = name
                yield panel
        yield Sparkline([], id="rate")
        yield DataTable(id="changes", cursor_type="row", zebra_stripes=True)
        yield Footer()

    def on_mount(self) -> None:
        """Start the sources."""
        self.render_board()
        self.set_interval(REFRESH_SECONDS, self.render_board)
        self._source.start(lambda news: self.post_message(Told(news)))

    def on_unmount(self) -> None:
        """Stop the sources."""
        self._source.stop()

    def on_told(self, told: Told) -> None:
        """Take some news, and show them."""
        self.board.take(told.news)
        self.render_board()

    def render_board(self) -> None:
        """Show the board as it is."""
        board = self.board
        self.query_one("#summary", Static).update(f"pointsman top  {self._name}  {board.summary()}")
        missing = self.query_one("#missing", Static)
        missing.update("\n".join(map(printable, board.absences())))
        missing.display = bool(board.missing)
        panels = {"calls": board.calls(), "caches": board.caches(), "lags": board.lags(), "watchers": board.watchers()}
        for name, lines in panels.items():
            self.query_one(f"#{name}", Static).update(panel_text(lines))
        self.query_one(Sparkline).data = list(board.rates)
        self._show_changes()

    def _show_changes(self) -> None:
        changes = self.board.changes
        newest = changes[0].revision if changes else 0
        if newest == self._shown:
            return
        self._shown = newest
        rows = [tuple(map(printable, change_row(change))) for change in changes]
        table = self.query_one(DataTable)
        table.clear(columns=True)
        # Widths of our own: the table measures its cells later, and draws them cut until then.
        for label, *cells in zip(COLUMNS, *rows, strict=True):
            table.add_column(label, width=max(map(len, (label, *cells))))
        for row in rows:
            table.add_row(*map(Text, row))


def panel_text(lines: Lines) -> str:
    """Return the lines of a panel, with the values in one column."""
    width = max((len(name) for name, _ in lines), default=0)
    return "\n".join(f"{printable(name):<{width}}  {printable(value)}" for name, value in lines) or "-"


def change_row(change: Change) -> tuple[str, ...]:
    """Return one row of the table."""
    return (
        time_text(change.occur_time),
        str(change.revision),
        change.actor,
        change.kind,
        str(change.key),
        what_text(change),
        change.reason,
    )
